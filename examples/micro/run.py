"""The same as main.cc in Python: a file on TensorFlow Lite Micro's interpreter, by the package tflite-micro.

    python examples/micro/run.py model.tflite IMAGES.npy

IMAGES.npy has numbers of the input's type, an image each along the first axis (int8 pixels are `pixels - 128`). It
needs NumPy and tflite-micro, whose pins are not ours: an environment of its own.
"""

import sys

import numpy as np


def main(path: str, images: str) -> None:
    """Prints, for each image, the output's numbers and the place of the largest one."""
    from tflite_micro import runtime  # pyright: ignore[reportMissingImports]

    interpreter = runtime.Interpreter.from_file(path)
    for image in np.load(images):
        interpreter.set_input(image[None], 0)
        interpreter.invoke()
        values = interpreter.get_output(0).ravel()
        print(*values)
        print(f"largest: {values.argmax()}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"A file and images are required: run.py model.tflite IMAGES.npy. Received: {sys.argv[1:]}")
    main(*sys.argv[1:])
