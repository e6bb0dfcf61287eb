"""The Edge TPU checker against public files before and after Coral's compiler.

    git clone https://github.com/google-coral/test_data DIR
    python -m benchmarks.edgetpu --data_dir=DIR

For each `NAME.tflite` with a `NAME_edgetpu.tflite` it compares the operators that the checker leaves to the CPU with
those that the compiler left, by their names. The status is 1 if any differ. What was found: docs/results/edgetpu.md.
"""

import collections
import pathlib
import sys

from absl import app, flags

from benchmarks import results
from tflite_export.devices import edgetpu
from tflite_export.file.graph import StoredOperator, stored_operators
from tflite_export.file.reader import read_model

FLAGS = flags.FLAGS
RESULTS = results.FOLDER / "edgetpu"
SUFFIX = "_edgetpu.tflite"
COMPILED = "edgetpu-custom-op"  # what the compiler puts in the place of its part
TEXT = """\
Files of github.com/google-coral/test_data, before and after Coral's compiler: the operators that the compiler left to
the CPU, and those that `tflite_export.devices.edgetpu` predicts, compared by their names. Files larger than 4 MB were
not at hand. `python -m benchmarks.edgetpu --data_dir=DIR` writes this page."""


def operators(path: pathlib.Path) -> list[StoredOperator]:
    """Of a file's main graph."""
    return list(stored_operators(read_model(path.read_bytes())))


def compare(source: pathlib.Path, compiled: pathlib.Path) -> dict:
    """One file's operators before the compiler, those that it left to the CPU, and the prediction."""
    before = operators(source)
    predicted = collections.Counter(one.name for one in edgetpu.placements(before) if one.device == "CPU")
    left = collections.Counter(one.name for one in operators(compiled) if one.builtin != COMPILED)
    return {
        "file": source.stem,
        "operators": len(before),
        "left": left.total(),
        "predicted": predicted.total(),
        "same": predicted == left,
    }


def table(found: dict) -> str:
    """The page."""
    columns = ("file", "operators", "left to the CPU", "predicted", "the same ones")
    rows = [(*list(one.values())[:-1], "yes" if one["same"] else "NO") for one in found["files"]]
    return results.page("What stays on the CPU, compiled and predicted", TEXT, columns, rows)


def main(argv) -> int:
    """Writes the result; returns the exit status."""
    pairs = [
        (source, compiled)
        for compiled in sorted(pathlib.Path(FLAGS.data_dir).rglob(f"*{SUFFIX}"))
        if (source := compiled.with_name(f"{compiled.name.removesuffix(SUFFIX)}.tflite")).exists()
    ]
    if not pairs:
        raise app.UsageError(f"--data_dir must have files with a *{SUFFIX} beside them. Received: {FLAGS.data_dir}")
    found = {"files": [compare(*pair) for pair in pairs]}
    results.publish(RESULTS, found, table(found))
    print(table(found))
    return int(not all(one["same"] for one in found["files"]))


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "The folder of the files.", required=True)
    sys.exit(app.run(main))
