"""tflite-runtime 2.14, whose package leaves int8 to the optimized kernels: no XNNPACK. One thread."""

from images import of_interpreter, run_all
from tflite_runtime.interpreter import Interpreter


def open_file(file):
    """From an image's inputs to its outputs."""
    return of_interpreter(Interpreter(file, num_threads=1))


if __name__ == "__main__":
    run_all(open_file)
