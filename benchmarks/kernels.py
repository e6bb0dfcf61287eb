"""What other kernels make of a file: every operator alone, fed the twin's integers; and the answers of the whole.

    make judges
    python -m benchmarks.kernels --data_dir=DIR [--models='runs/fine_tuning/*/model.keras'] [--images=100]

The kernels are those of all `judges`. Fed the same integers, an operator that differs does so by its own rounding, not
by what came before. Every model is a file in `docs/results/kernels/`, one that is there is not run again; the table of
all is `docs/results/kernels.md`.
"""

import collections
import copy

import numpy as np
from absl import app
from tensorflow.lite.tools import flatbuffer_utils

import satkeras
from benchmarks import judges, results
from benchmarks.saved_models import define_flags, run_all
from tflite_export.file.convert import convert
from tflite_export.file.match import match_operators
from tflite_export.lowering.lower import make_plan
from tflite_export.plan import Operator, Plan, Tensor
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
* MEAN: the default kernel multiplies the sum by a float32 number, the others by a fixed-point one, rounded twice.
* MUL: its multiplier is chosen so that its input's 256 codes stay clear of midway between two levels. To a grid below 8
  bits it is exact in all kernels; between two grids of 8 bits some codes still come too close for rounding twice.
* PAD and SOFTMAX are exact in all of them.

64-bit Arm: LiteRT 2.1 in QEMU 7.2 as a Cortex-A76."""


def alone(plan: Plan, content: bytes) -> tuple[bytes, list[tuple[Tensor, tuple[int, ...]]], list[Operator]]:
    """A file of the same operators in which each reads inputs of its own and its result is an output.

    Returns:
      The file; what its inputs stand for, and their shapes; the operators whose results its outputs are.
    """
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    graph = model.subgraphs[0]
    matches = match_operators(plan, model)
    activations = {id(tensor): planned for planned, tensor in matches.tensors}
    inputs, taken = [], []
    for _, found in matches.operators:
        indices = list(found.inputs)
        for place, index in enumerate(indices):
            tensor = graph.tensors[index]
            if id(tensor) in activations:
                own = copy.copy(tensor)
                own.name = f"input_{len(inputs)}".encode()
                indices[place] = len(graph.tensors)
                graph.tensors.append(own)
                inputs.append(indices[place])
                taken.append((activations[id(tensor)], tuple(tensor.shape)))
        found.inputs = np.array(indices, np.int32)
    graph.operators = [found for _, found in matches.operators]
    graph.inputs = np.array(inputs, np.int32)
    graph.outputs = np.array([found.outputs[0] for _, found in matches.operators], np.int32)
    model.signatureDefs = []
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model)), taken, [op for op, _ in matches.operators]


def compare(path: str, images: np.ndarray, labels: np.ndarray) -> dict:
    """For every set of kernels, what differs by kind of operator, and the answers of the whole file."""
    plan = make_plan(satkeras.load_model(path))
    content = convert(plan)
    codes = input_codes(plan.inputs[0], images)
    compute = twin_tensors(plan)
    batches = [compute([codes[at : at + 50]]) for at in range(0, len(codes), 50)]
    twin = {tensor: np.concatenate([batch[tensor] for batch in batches]).astype(np.int8) for tensor in batches[0]}
    isolated, taken, operators = alone(plan, content)
    inputs = [twin[x].reshape(-1, *shape[1:]) for x, shape in taken]
    (answer,) = plan.outputs
    expected = twin[answer].reshape(len(codes), -1).argmax(-1)
    found = {}
    for name, judge in judges.JUDGES.items():
        kinds: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0, 0])
        for operator, values in zip(operators, judges.run(name, isolated, inputs), strict=True):
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
