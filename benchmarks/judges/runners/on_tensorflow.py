"""The interpreter that comes with TensorFlow: `python on_tensorflow.py FILE INPUTS OUTPUTS [--kernels=KERNELS]`.

The kernels are `default` (XNNPACK, and the optimized ones of what it leaves) or `reference`. One thread.
"""

import argparse

from images import of_interpreter, run_all
from tensorflow.lite.python.interpreter import Interpreter, OpResolverType

KERNELS = {"default": OpResolverType.AUTO, "reference": OpResolverType.BUILTIN_REF}


def open_file(file, kernels):
    """From an image's inputs to its outputs."""
    return of_interpreter(Interpreter(file, num_threads=1, experimental_op_resolver_type=KERNELS[kernels]))


if __name__ == "__main__":
    kernels_parser = argparse.ArgumentParser()
    kernels_parser.add_argument("--kernels", choices=KERNELS, default="default")
    run_all(open_file, kernels_parser)
