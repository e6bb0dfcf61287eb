"""TensorFlow Lite Micro: its reference kernels, as compiled for Python."""

import pathlib

import numpy as np
from images import run_all
from tflite_micro import runtime
from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

ARENA_BYTES = 1 << 29  # Tensors that are outputs live to the end; a page that is never touched costs nothing.


def open_file(file):
    """From an image's inputs to its outputs."""
    content = pathlib.Path(file).read_bytes()
    outputs = schema.Model.GetRootAsModel(content, 0).Subgraphs(0).OutputsLength()
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=ARENA_BYTES)

    def compute(image):
        for index, value in enumerate(image):
            interpreter.set_input(value, index)
        interpreter.invoke()
        return [np.array(interpreter.get_output(index)) for index in range(outputs)]

    return compute


if __name__ == "__main__":
    run_all(open_file)
