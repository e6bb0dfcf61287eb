"""What the choices in Quantization Networks' training are worth: a ResNet-8 on CIFAR-10, weights alone, small runs.

    python -m benchmarks.temperature --data_dir=DIR --pretrained_dir=DIR

2 epochs of 10,000 images each, otherwise as `benchmarks.fine_tuning`. Results: `docs/results/temperature/` and `.md`.
"""

import dataclasses

from absl import app

import satkeras
from benchmarks import results
from benchmarks.fine_tuning import define_flags, run_all
from benchmarks.runs import Run

RESULTS = results.FOLDER / "temperature"
# Of MLPerf Tiny's ResNet-8.
FIRST_AND_LAST = ("conv2d", "dense")


def _run(
    weight_bits: int | str,
    highest: float,
    followed: float | None,
    learn_thresholds: bool = False,
    ends: tuple[str, ...] = (),
    learning_rate: float = 0.01,
    lowest: float | None = None,
) -> Run:
    base = satkeras.SCHEMES["qn"]
    weights = dataclasses.replace(base.weights, gradient_temperature=followed, learn_thresholds=learn_thresholds)
    return Run(
        "resnet8",
        dataclasses.replace(base, weights=weights, lone_weights=weights),
        weight_bits,
        8,
        (("weights", 2),),
        ("" if lowest is None else f"from {lowest:g} by a factor ")
        + f"to {highest:g}, gradient at most {'T' if followed is None else f'{followed:g}'}"
        + (", learned thresholds" if learn_thresholds else "")
        + (", first and last layer in full precision" if ends else "")
        + (f", learning rate {learning_rate:g}" if learning_rate != 0.01 else ""),
        full_precision=ends,
        highest_temperature=highest,
        images=10_000,
        # Its own 0.99 would score the steps of high temperatures with the statistics of low ones.
        batch_norm_momentum=0.9,
        learning_rate=learning_rate,
        lowest_temperature=lowest,
    )


LEVELS = ("3bit+-4", "ternary", 1)
TEMPERATURES = ((50, None), (300, None), (2000, None), (2000, 3), (2000, 10), (100_000, 10))
RUNS = (
    Run("resnet8", None, None, None, ((None, 2),), "float", images=10_000, batch_norm_momentum=0.9),
    *(_run(levels, *temperatures) for temperatures in TEMPERATURES for levels in LEVELS),
    *(_run(levels, 2000, 10, learning_rate=rate) for rate in (0.003, 0.05) for levels in LEVELS),
    *(_run(levels, 2000, 10, learn_thresholds=True) for levels in LEVELS),
    *(_run(levels, 300, None, learned, lowest=5) for learned in (False, True) for levels in LEVELS),
    *(_run(levels, 2000, 10, ends=FIRST_AND_LAST) for levels in LEVELS),
)


def table() -> str:
    """All results there are, in Markdown: a row for each choice, a column for each set of levels."""
    found: dict[str, dict[str, str]] = {}
    for task in RUNS:
        result = results.read(task.path(RESULTS))
        if result is not None and "file_accuracy" in result:
            found.setdefault(task.title, {})[str(task.weight_bits)] = f"{result['accuracy'][-1]:.2%}"
    rows = [
        (title, *(cells.get(str(levels), cells.get("None", "")) for levels in LEVELS)) for title, cells in found.items()
    ]
    return results.page(
        "Quantization Networks: temperature, and how much of it the gradient follows",
        "`python -m benchmarks.temperature`: MLPerf Tiny's ResNet-8 on CIFAR-10, weights at the levels named, 8-bit "
        "activations, 2 epochs of 10,000 images, `TemperaturePerStep` up to the temperature named or, *by a factor*, "
        "`GeometricTemperature`, seed 0; accuracy with steps on the 10,000 test images. *Gradient at most T*: the "
        "exact derivative. One run each: a point is noise.",
        ("temperature", *(f"W{levels}" for levels in LEVELS)),
        rows,
    )


def main(argv) -> None:
    """Runs every task that is left."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    run_all(RUNS, RESULTS, table)


if __name__ == "__main__":
    define_flags()
    app.run(main)
