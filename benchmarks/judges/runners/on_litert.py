"""LiteRT, here or for another processor: `python on_litert.py FILE INPUTS OUTPUTS [--kernels=KERNELS]`.

The kernels are `default` (XNNPACK, and the optimized ones of what it leaves), `builtin` (the optimized ones alone) or
`reference`. One thread.
"""

import argparse

from ai_edge_litert.interpreter import Interpreter, OpResolverType
from images import of_interpreter, run_all

KERNELS = {
    "default": OpResolverType.AUTO,
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
}


def open_file(file, kernels):
    """From an image's inputs to its outputs."""
    return of_interpreter(Interpreter(file, num_threads=1, experimental_op_resolver_type=KERNELS[kernels]))


if __name__ == "__main__":
    kernels_parser = argparse.ArgumentParser()
    kernels_parser.add_argument("--kernels", choices=KERNELS, default="default")
    run_all(open_file, kernels_parser)
