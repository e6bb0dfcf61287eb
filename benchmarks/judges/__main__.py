"""What every judge makes of a file: its speed, and the integers that differ from LiteRT's default kernels.

    python -m benchmarks.judges FILE.tflite [--images=100] [--seconds=60] [--judges=tflm,tosa]

The inputs are random integers, but for an image of all lowest ones, one of all highest ones, and one of both. A judge
that is slow runs as many images as --seconds allow. The status is 1 if an integer differs or a judge cannot say.
"""

import pathlib
import sys

import numpy as np
from absl import app, flags

from benchmarks import judges
from benchmarks.judges import running

FLAGS = flags.FLAGS


def inputs_of(content: bytes, images: int) -> list[np.ndarray]:
    """Random and extreme integers for each input of a file, at least three images."""
    rng = np.random.default_rng(0)
    found = []
    for tensor in running.read(content)[0]:
        ends = np.iinfo(tensor.type).min, np.iinfo(tensor.type).max
        values = rng.integers(ends[0], ends[1] + 1, (max(images, 3), *tensor.shape))
        values[0], values[1], values[2] = ends[0], ends[1], rng.choice(ends, tensor.shape)
        found.append(values.astype(tensor.type).reshape(-1, *tensor.shape[1:]))
    return found


def differences(outputs: list[np.ndarray], others: list[np.ndarray]) -> list[np.ndarray]:
    """How far the integers of the images that both have are apart, output by output."""
    return [
        np.abs(mine[: len(its)].astype(np.int64) - its[: len(mine)]) for mine, its in zip(outputs, others, strict=True)
    ]


def main(argv) -> int:
    """Prints a line for each judge; returns the exit status."""
    if len(argv) != 2:
        raise app.UsageError(f"One .tflite file is required. Received: {argv[1:]}")
    content = pathlib.Path(argv[1]).read_bytes()
    inputs = inputs_of(content, FLAGS.images)
    expected = judges.run("default", content, inputs)
    failed = False
    for name in FLAGS.judges or judges.JUDGES:
        try:
            answers = judges.run_for(FLAGS.seconds, name, content, inputs)
        except (judges.MissingJudgeError, judges.JudgeError) as error:
            print(f"{name}: {error}", flush=True)
            failed = True
            continue
        apart = differences(answers.outputs, expected)
        differing, compared = (sum(count(difference) for difference in apart) for count in (np.count_nonzero, np.size))
        largest = max(difference.max() for difference in apart)
        speed = answers.images / answers.seconds
        print(
            f"{name}: {answers.images} images, {speed:,.1f} a second; "
            f"{differing:,} of {compared:,} integers differ, by {largest} at most",
            flush=True,
        )
        failed |= bool(differing)
    return int(failed)


if __name__ == "__main__":
    flags.DEFINE_integer("images", 100, "How many images at most.", 3)
    flags.DEFINE_float("seconds", 60, "How long a judge may take for its images.", 0)
    flags.DEFINE_list("judges", [], "Which judges; all there are unless told.")
    sys.exit(app.run(main))
