"""The file as Arm's converter translates it to TOSA, on TOSA's reference model, which the specification goes with."""

import pathlib
import subprocess
import sys
import sysconfig
import tempfile

import numpy as np
import tosa_reference_model
from images import run_all

PROGRAMS = pathlib.Path(sysconfig.get_path("purelib")) / "bin"


def translate(file, folder):
    """The bytes of the TOSA graph; its inputs and outputs are in the file's order.

    Args:
      file: path of the .tflite file.
      folder: where intermediate files may lie.
    """
    translated, serialized = (pathlib.Path(folder) / name for name in ("model.mlirbc", "model.tosa"))
    converter = [sys.executable, "-m", "tosa_converter_for_tflite.cli", file, "-o", translated]
    serializer = [
        *(PROGRAMS / "tosa-opt", translated, "-o", "/dev/null"),
        *("--tosa-convert-integer-type-to-signless", "--tosa-serialize"),
        f"--tosa-flatbuffer-filename={serialized}",
        f"--tosa-flatbuffer-schema={PROGRAMS / 'tosa.fbs'}",
    ]
    for command in (converter, serializer):
        if subprocess.run(command).returncode:
            sys.exit("TOSA has no such graph, by the errors above.")
    return serialized.read_bytes()


def open_file(file):
    """From an image's inputs to its outputs; unsigned integers are int8 of the same bits."""
    with tempfile.TemporaryDirectory() as folder:
        graph = translate(file, folder)

    def compute(image):
        inputs = [value.view(np.int8) if value.dtype == np.uint8 else value for value in image]
        outputs, status = tosa_reference_model.run(graph, inputs)
        if status != tosa_reference_model.GraphStatus.TOSA_VALID:
            raise RuntimeError(f"The specification must define what the graph computes. Received: {status}")
        return outputs

    return compute


if __name__ == "__main__":
    run_all(open_file)
