"""The models that trainings leave behind: saved with their files, and each measured once."""

import glob
import pathlib
from collections.abc import Callable

import numpy as np
import tf_keras as keras
from absl import app, flags

import satkeras
import tflite_export
from benchmarks import results
from examples import datasets
from tflite_export.verification.interpreter import open_interpreter, run

FLAGS = flags.FLAGS


def export(model: keras.Model, folder: pathlib.Path, test: tuple[np.ndarray, np.ndarray], compared: int) -> dict:
    """Saves a trained model and its file; returns what the file scores, its size, and how many integers differ.

    Args:
      test: uint8 images and their labels.
      compared: on how many of the images the file's integers are compared with the twin's.
    """
    model.compile()  # Saved, it would name a program's own optimizer or loss, which no other program knows.
    satkeras.save_model(model, folder / "model.keras")
    images, labels = test
    report = tflite_export.export_tflite(model, folder / "model.tflite", verify_data=images[:compared])
    (answers,) = run(open_interpreter((folder / "model.tflite").read_bytes()), images)
    return {
        "file_accuracy": float(np.mean(answers.argmax(-1) == labels)),
        "file_bytes": report.file_bytes,
        f"differing_integers_{compared}_images": report.verification.differing if report.verification else None,
    }


def run_all(
    compare: Callable[[str, np.ndarray, np.ndarray], dict], folder: pathlib.Path, make_table: Callable[[], str]
) -> None:
    """Measures every model that is left and that matches --models; writes the table after each.

    Args:
      compare: from a model's path, images (float32, as stored) and labels to a result.
      folder: of the results, one for each model.
      make_table: of all results there are.
    """
    paths = sorted(glob.glob(FLAGS.models))
    if not paths:
        raise app.UsageError(f"--models matches no file: {FLAGS.models}. Run benchmarks.fine_tuning first")
    images, labels = (values[: FLAGS.images] for values in datasets.load(FLAGS.dataset, FLAGS.data_dir).test)
    for path in paths:
        result = folder / f"{pathlib.Path(path).parent.name}.json"
        if not result.exists():
            print(f"=== {result.stem}", flush=True)
            results.write(result, compare(path, images.astype(np.float32), labels))
            folder.with_suffix(".md").write_text(make_table())
    print(make_table())


def define_flags(images: int) -> None:
    """The flags that `run_all` reads; `images` is how many there are unless told."""
    flags.DEFINE_string("data_dir", None, "Where tensorflow-datasets keeps its data.", required=True)
    flags.DEFINE_enum("dataset", "cifar10", ["cifar10", "cifar100"], "Whose test images.")
    flags.DEFINE_string("models", "runs/fine_tuning/*/model.keras", "Pattern of saved models.")
    flags.DEFINE_integer("images", images, "How many test images.", 1, 10_000)
