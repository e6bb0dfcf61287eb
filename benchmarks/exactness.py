"""Compares trained models with their files integer by integer, on the 10,000 test images of CIFAR-10.

    python -m benchmarks.exactness --data_dir=DIR [--models='runs/fine_tuning/*/model.keras'] [--images=10000]

The models are those that `benchmarks.fine_tuning` leaves behind. LiteRT's default kernels compute all the images, its
reference kernels, which round twice, the first thousand. Every model is a file in `docs/results/exactness/`; one that
is there is not compared again. The table of all of them is `docs/results/exactness.md`.
"""

import glob
import pathlib

import numpy as np
from absl import app, flags

import satkeras
from benchmarks import results
from examples import datasets
from tflite_export.convert import convert
from tflite_export.lower import make_plan
from tflite_export.report import Verification
from tflite_export.verify import verify

FLAGS = flags.FLAGS
RESULTS = results.FOLDER / "exactness"
REFERENCE_IMAGES = 1000


def _numbers(found: Verification) -> dict:
    elements = sum(tensor.elements for tensor in found.tensors)
    return {
        "images": found.images,
        "elements": elements,
        "differing": found.differing,
        "largest_difference": max(tensor.file_largest for tensor in found.tensors),
        "first_divergence": found.first_divergence,
        "worst_layer_share": found.worst_layer_share,
        "top1_agreement_of_the_training_model": found.top1_agreement,
        "top1_agreement_of_the_twin": found.twin_top1_agreement,
    }


def compare(path: str, images: np.ndarray) -> dict:
    """Both kernels' numbers for a saved model."""
    model = satkeras.load_model(path)
    plan = make_plan(model)
    content = convert(plan)
    return {
        "default": _numbers(verify(model, plan, content, [images])),
        "reference": _numbers(verify(model, plan, content, [images[:REFERENCE_IMAGES]], "reference")),
    }


def table() -> str:
    """All results there are, in Markdown."""
    rows = []
    for path in sorted(RESULTS.glob("*.json")):
        for kernels, found in (results.read(path) or {}).items():
            rows.append(
                (
                    path.stem.replace("_", " "),
                    kernels,
                    f"{found['images']:,}",
                    f"{found['elements']:,}",
                    f"{found['differing']:,} ({found['differing'] / found['elements']:.1e})",
                    found["largest_difference"],
                    f"{found['worst_layer_share']:.1e}",
                    f"{found['top1_agreement_of_the_training_model']:.2%}",
                )
            )
    return results.page(
        "Integers that differ between the twin and the file, CIFAR-10 test images",
        "`python -m benchmarks.exactness`. *Layer*: the largest share, in any layer, of integers that differ between\n"
        "the training model's layer and the twin's, both fed the same input. *Answers*: training model and file agree.",
        ("model", "kernels", "images", "integers", "differ", "largest", "layer", "answers"),
        rows,
    )


def main(argv) -> None:
    """Compares every model that is left."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    paths = sorted(glob.glob(FLAGS.models))
    if not paths:
        raise app.UsageError(f"--models matches no file: {FLAGS.models}. Run benchmarks.fine_tuning first")
    images = datasets.load("cifar10", FLAGS.data_dir).test[0][: FLAGS.images].astype(np.float32)
    for path in paths:
        result = RESULTS / f"{pathlib.Path(path).parent.name}.json"
        if not result.exists():
            print(f"=== {result.stem}", flush=True)
            results.write(result, compare(path, images))
            RESULTS.with_suffix(".md").write_text(table())
    print(table())


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "Where tensorflow-datasets keeps its data.", required=True)
    flags.DEFINE_string("models", "runs/fine_tuning/*/model.keras", "Pattern of saved models.")
    flags.DEFINE_integer("images", 10_000, "How many test images.", 1, 10_000)
    app.run(main)
