"""What every runner does: reads a file and images, runs image after image, writes the integers of every output.

    python on_RUNTIME.py FILE.tflite INPUTS.npz OUTPUTS.npz [--seconds=S]

INPUTS.npz has `arr_0`, `arr_1` ..., one for each input of the file, of shape (images, *the input's shape). OUTPUTS.npz
gets the same for the outputs, in the file's order, and `seconds`, which the images took. With --seconds no image is
begun after that time; the first always is. A runner is a program of its own environment: it needs NumPy and its
runtime, and imports nothing of this project but this file, which lies beside it.
"""

import argparse
import math
import time

import numpy as np


def run_all(open_file, parser=None):
    """Runs what the command line says.

    Args:
      open_file: from the file's path, and the other arguments of `parser` by their names, to a function that takes the
        inputs of an image (arrays of the inputs' shapes) and returns its outputs, in arrays of its own.
      parser: an argparse.ArgumentParser with more arguments, if the runner has any.
    """
    parser = parser or argparse.ArgumentParser()
    for name in ("file", "inputs", "outputs"):
        parser.add_argument(name)
    parser.add_argument("--seconds", type=float, default=math.inf)
    arguments = vars(parser.parse_args())
    inputs, outputs, seconds = (arguments.pop(name) for name in ("inputs", "outputs", "seconds"))
    with np.load(inputs) as archive:
        arrays = [archive[f"arr_{index}"] for index in range(len(archive.files))]
    compute = open_file(**arguments)
    found, start = [], time.perf_counter()
    for image in zip(*arrays, strict=True):
        found.append(compute(image))
        if time.perf_counter() - start >= seconds:
            break
    taken = time.perf_counter() - start
    np.savez(outputs, *(np.stack(column) for column in zip(*found, strict=True)), seconds=taken)


def of_interpreter(interpreter):
    """An image's outputs by an Interpreter of LiteRT or tflite-runtime, which have the same methods."""
    interpreter.allocate_tensors()
    slots = [detail["index"] for detail in interpreter.get_input_details()]
    results = [detail["index"] for detail in interpreter.get_output_details()]

    def compute(image):
        for slot, value in zip(slots, image, strict=True):
            interpreter.set_tensor(slot, value)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in results]

    return compute
