"""Exports the trained rows of a table, and holds their files against their twins and against Keras.

    python -m benchmarks.papers.files --table=mobilenet_v2 --data_dir=DIR [--test_images=10000] [--only='SAT *']

LiteRT's default and its reference kernels run every file on the test images, every tensor beside that of the kernels'
twin. The file of a float network is what TensorFlow's converter makes of it after training, int8 by the ranges of
512 training images; it has no twin. What is found stands in the row's own result, and on the table's page. A row whose
file was measured on as many images is not measured again.
"""

import fnmatch
import pathlib

import numpy as np
import tf_keras as keras
from absl import app, flags

import satkeras
from benchmarks import results
from benchmarks.families import RUN_HERE, differing
from benchmarks.papers import page
from benchmarks.papers.command import define_flags, load, place_of
from benchmarks.papers.epochs import Accuracy
from benchmarks.papers.rows import CALIBRATION_IMAGES, trained_model
from benchmarks.papers.tables import TABLES
from examples import datasets
from examples.outcomes import post_training_int8
from satkeras.training.phases import staircases
from tflite_export.file.writer import write_file
from tflite_export.lowering.lower import make_plan
from tflite_export.verification.interpreter import open_interpreter, run
from tflite_export.verification.verify import input_codes

FLAGS = flags.FLAGS


def measure(model, test: tuple[np.ndarray, np.ndarray], images: int) -> dict:
    """A file's size and accuracy, and how many integers differ from the twin of each family that runs here.

    Args:
      model: trained.
      test: uint8 images and labels.
      images: how many of them the integers are compared on; the accuracy is that of all.
    """
    if staircases(model):
        satkeras.freeze(model)
    plan = make_plan(model)
    content = write_file(plan)
    pixels, labels = test
    (x,) = plan.inputs
    codes = input_codes(x, pixels)
    (answers,) = run(open_interpreter(content), codes)
    return {
        "bytes": len(content),
        "accuracy": float(np.mean(answers.argmax(-1) == labels)),
        "keras_accuracy": Accuracy(model, test)(),
        "images": images,
        "integers": images * sum(int(np.prod(tensor.shape)) for tensor in plan.tensors),
        "differing": {kernels: differing(plan, content, codes[:images], kernels) for kernels in RUN_HERE},
    }


def measure_converted(model: keras.Model, data: datasets.Images) -> dict:
    """Size and accuracy of the int8 file that TensorFlow's converter makes of a float network."""
    content = post_training_int8(model, data.train[0][:CALIBRATION_IMAGES])
    pixels, labels = data.test
    (answers,) = run(open_interpreter(content), pixels)
    return {
        "bytes": len(content),
        "accuracy": float(np.mean(answers.argmax(-1) == labels)),
        "keras_accuracy": Accuracy(model, data.test)(),
        "images": len(pixels),
        "integers": 0,
        "differing": {},
    }


def main(argv) -> None:
    """Measures every trained row that is left."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    table = TABLES[FLAGS.table]
    data, place = load(table.dataset, FLAGS.data_dir), place_of(table)
    for name, row in table.rows.items():
        for path in sorted(place.results.glob(place.result(name, "*").name)):
            result = results.read(path) or {}
            left = FLAGS.test_images > result.get("file", {}).get("images", 0)
            chosen = any(fnmatch.fnmatchcase(name, pattern) for pattern in FLAGS.only) and (
                row.scheme is None or None not in row.bits
            )
            if chosen and left and place.trained(name, result["seed"]).exists():
                print(f"=== {name}, seed {result['seed']}", flush=True)
                model = trained_model(table, name, place, result["seed"], data.classes)
                if row.scheme is None:
                    found = measure_converted(model, data)
                else:
                    found = measure(model, data.test, FLAGS.test_images)
                results.write(path, result | {"file": found})
                pathlib.Path(f"{place.results}.md").write_text(page.text(table, place))
    print(page.text(table, place))


if __name__ == "__main__":
    define_flags()
    flags.DEFINE_integer("test_images", 10_000, "How many test images the integers are compared on.", 1, 10_000)
    app.run(main)
