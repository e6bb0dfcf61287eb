"""Compares trained models with their files integer by integer, on 10,000 test images.

    python -m benchmarks.exactness --data_dir=DIR [--images=10000]
    python -m benchmarks.exactness --data_dir=DIR --dataset=cifar100 --models='runs/cifar100/*/model.keras'

The models are those that `benchmarks.fine_tuning` and `benchmarks.cifar100` leave behind. LiteRT's default kernels and
its reference kernels compute all the images, each beside the twin of its family. Every model is a file in
`docs/results/exactness/`; one that is there is not compared again. The table of all is `docs/results/exactness.md`.
"""

import numpy as np
from absl import app

import satkeras
from benchmarks import results
from benchmarks.saved_models import define_flags, run_all
from tflite_export.file.writer import write_file
from tflite_export.lowering.lower import make_plan
from tflite_export.verification.interpreter import open_interpreter, run
from tflite_export.verification.report import Verification
from tflite_export.verification.verify import verify

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


def compare(path: str, images: np.ndarray, labels: np.ndarray) -> dict:
    """Both kernels' numbers for a saved model, and how often it and its file are right."""
    model = satkeras.load_model(path)
    plan = make_plan(model)
    content = write_file(plan)
    answers = model.predict(images, batch_size=250, verbose=0), *run(open_interpreter(content), images.astype(np.uint8))
    accuracy, file_accuracy = (float(np.mean(given.argmax(-1) == labels)) for given in answers)
    return {
        "accuracy": accuracy,
        "file_accuracy": file_accuracy,
        "default": _numbers(verify(model, plan, content, [images])),
        "reference": _numbers(verify(model, plan, content, [images], "reference")),
    }


def table() -> str:
    """All results there are, in Markdown."""
    rows = []
    for path in sorted(RESULTS.glob("*.json")):
        found = results.read(path) or {}
        default, reference = found["default"], found["reference"]
        rows.append(
            (
                path.stem.replace("_", " "),
                f"{default['images']:,}",
                f"{default['differing']:,} of {default['elements']:,}",
                f"{found['accuracy']:.2%}",
                f"{found['file_accuracy']:.2%}",
                f"{default['top1_agreement_of_the_training_model']:.2%}",
                f"{default['worst_layer_share']:.1e}",
                f"{reference['differing'] / reference['elements']:.1e}",
                reference["largest_difference"],
            )
        )
    return results.page(
        "Integers that differ between the twin and the file",
        "`python -m benchmarks.exactness`: LiteRT's default kernels, all layers. *Same answers*: of the training model "
        "and the file. *Layer*: the largest share, in any layer, of integers that differ between the training model's "
        f"layer and the twin's, both fed the same input. *Reference*: LiteRT's reference kernels, {REFERENCE_IMAGES:,} "
        "images from the image on; a difference in one layer leads to others in the next "
        "([kernels.md](kernels.md) has each operator alone). *seed 0*: the MobileNetV2 of [cifar100.md](cifar100.md). "
        "Those *taught*, with *two thirds*, and sat W8A8 requantize by MULs; the others did by depthwise convolutions."
        "\n\nTargets: no integer differs; at W8A8 and W4A4 the same answers to 99.5 % of the images, and accuracies at "
        "most 0.1 points apart.",
        (
            "model",
            "images",
            "integers that differ",
            "accuracy in Keras",
            "in the file",
            "same answers",
            "layer",
            "reference: share that differs",
            "largest",
        ),
        rows,
    )


def main(argv) -> None:
    """Compares every model that is left."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    run_all(compare, RESULTS, table)


if __name__ == "__main__":
    define_flags(images=10_000)
    app.run(main)
