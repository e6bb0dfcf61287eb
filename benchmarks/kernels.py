"""What other kernels make of a file: every operator alone, fed the twin's integers; and the answers of the whole.

    make judges
    python -m benchmarks.kernels --data_dir=DIR [--models='runs/fine_tuning/*/model.keras'] [--images=100]

The kernels are those of all `judges`. Fed the same integers, an operator that differs does so by its own rounding, not
by what came before. Every model is a file in `docs/results/kernels/`, one that is there is not run again; the table of
all is `docs/results/kernels.md`.
"""

import collections
import dataclasses

import numpy as np
from absl import app

import satkeras
from benchmarks import judges, results
from benchmarks.saved_models import define_flags, run_all
from satkeras.quantizers.int8 import narrowed
from tflite_export.file.writer import write_file
from tflite_export.lowering.lower import make_plan
from tflite_export.plan import Plan, Tensor
from tflite_export.verification.twin import twin_tensors
from tflite_export.verification.verify import input_codes

RESULTS = results.FOLDER / "kernels"
CAUSES = """\
Classes of difference, all of one level, and what causes them:

* Convolutions, depthwise ones included: one rounding of the float32 product in LiteRT's default kernels (XNNPACK) and
  in the twin; the other kernels round twice, a saturating doubling high multiplication and then a rounding shift, so a
  sum that lies close to midway between two levels goes to the other one.
* FULLY_CONNECTED: LiteRT's reference kernel rounds once, the others but the default twice.
* ADD: the default kernel adds in 32-bit fixed point and rounds once, the others shift each summand, scale it, and scale
  the sum again.
* MEAN, in files from before it was an AVERAGE_POOL_2D, exact in all: the default kernel multiplies the sum by a
  float32 number, the others by a fixed-point one, rounded twice.
* MUL: its multiplier is chosen so that its input's 256 codes stay clear of midway between two levels. To a grid below 8
  bits it is exact in all kernels; between two grids of 8 bits some codes still come too close for rounding twice.
* PAD and SOFTMAX are exact in all of them.

64-bit Arm: LiteRT 2.1 in QEMU 7.2 as a Cortex-A76."""


def alone(plan: Plan) -> tuple[Plan, list[Tensor]]:
    """A plan of the same operators in which each reads inputs of its own and its result is an output.

    Returns:
      The plan, and which tensor of `plan` each of its inputs is.
    """
    read = [x for operator in plan.operators for x in operator.inputs]
    inputs = [dataclasses.replace(x, name=f"input_{place}") for place, x in enumerate(read)]
    waiting = iter(inputs)
    operators = [
        dataclasses.replace(operator, inputs=tuple(next(waiting) for _ in operator.inputs))
        for operator in plan.operators
    ]
    outputs = plan.tensors
    input_names, output_names = ([tensor.name for tensor in ends] for ends in (inputs, outputs))
    return Plan(tuple(inputs), tuple(operators), outputs, tuple(input_names), tuple(output_names)), read


def compare(path: str, images: np.ndarray, labels: np.ndarray) -> dict:
    """For every set of kernels, what differs by kind of operator, and the answers of the whole file."""
    plan = make_plan(satkeras.load_model(path))
    content = write_file(plan)
    codes = input_codes(plan.inputs[0], images)
    compute = twin_tensors(plan)
    batches = [compute([codes[at : at + 50]]) for at in range(0, len(codes), 50)]
    twin = {tensor: narrowed(np.concatenate([batch[tensor] for batch in batches]), np.int8) for tensor in batches[0]}
    separate, read = alone(plan)
    isolated, inputs = write_file(separate, "int8", "int8"), [twin[x] for x in read]
    (answer,) = plan.outputs
    expected = twin[answer].reshape(len(codes), -1).argmax(-1)
    found = {}
    for name, judge in judges.JUDGES.items():
        kinds: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0, 0])
        for operator, values in zip(plan.operators, judges.run(name, isolated, inputs), strict=True):
            difference = np.abs(values.ravel().astype(np.int32) - twin[operator.output].ravel())
            elements, differing, largest = kinds[operator.builtin]
            kinds[operator.builtin] = [
                elements + difference.size,
                differing + int(np.count_nonzero(difference)),
                max(largest, int(difference.max())),
            ]
        (answers,) = judges.run(name, content, [codes])
        best = answers.reshape(len(codes), -1).argmax(-1)
        found[judge.title] = {
            "operators": {
                kind: dict(zip(("elements", "differing", "largest"), counts, strict=True))
                for kind, counts in kinds.items()
            },
            "agreement": float(np.mean(best == expected)),
            "accuracy": float(np.mean(best == labels)),
        }
    return {"images": len(images), "kernels": found}


def table() -> str:
    """All results there are, in Markdown."""
    rows = []
    for path in sorted(RESULTS.glob("*.json")):
        result = results.read(path) or {}
        for kernels, found in result["kernels"].items():
            counts = found["operators"].values()
            elements, differing = (sum(count[name] for count in counts) for name in ("elements", "differing"))
            kinds = [
                f"{kind} {count['differing'] / count['elements']:.1e}"
                for kind, count in found["operators"].items()
                if count["differing"]
            ]
            rows.append(
                (
                    path.stem.replace("_", " "),
                    kernels,
                    f"{elements:,}",
                    f"{differing:,} ({differing / elements:.1e})",
                    max(count["largest"] for count in counts),
                    ", ".join(kinds),
                    f"{found['agreement']:.1%}",
                    f"{found['accuracy']:.1%}",
                )
            )
    return results.page(
        "The same file on other kernels",
        "`python -m benchmarks.kernels`, CIFAR test images. Each operator alone, fed the twin's integers: how many "
        "of its results are another integer than the twin's, and by how much at most. *Answers*, *accuracy*: of the "
        "whole file, from the image on.\n\nTarget: on the default kernels no integer differs, on the others 0.1 % of "
        f"them at most, by one level.\n\n{CAUSES}",
        ("model", "kernels", "integers", "differ", "largest", "kinds of operator", "answers", "accuracy"),
        rows,
    )


def main(argv) -> None:
    """Compares every model that is left."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    run_all(compare, RESULTS, table)


if __name__ == "__main__":
    define_flags(images=200)
    app.run(main)
