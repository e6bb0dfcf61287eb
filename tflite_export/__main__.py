"""The command line.

python -m tflite_export portable IN.tflite OUT.tflite [--images=IMAGES.npy]
"""

import sys

import numpy as np
from absl import app
from absl.flags import argparse_flags

from tflite_export.portable_files import portable_tflite
from tflite_export.verification.interpreter import open_interpreter, run


def parser() -> argparse_flags.ArgumentParser:
    """Of all commands."""
    found = argparse_flags.ArgumentParser(prog="python -m tflite_export")
    commands = found.add_subparsers(dest="command", required=True)
    portable = commands.add_parser(
        "portable",
        help="rewrite an int8 file so that every runtime gives the same integers",
        description="Rewrites an int8 file of any tool so that every runtime computes the same integers. The status is "
        "1 if an operator stays on which runtimes may part.",
    )
    portable.add_argument("source", metavar="IN.tflite")
    portable.add_argument("path", metavar="OUT.tflite")
    portable.add_argument(
        "--images",
        metavar="IMAGES.npy",
        help="inputs of the file's type, along the first axis, to say how many answers change",
    )
    portable.set_defaults(run=_portable)
    return found


def _portable(arguments) -> int:
    before = None if arguments.images is None else _answers(arguments.source, np.load(arguments.images))
    found = portable_tflite(arguments.source, arguments.path)
    print(found)
    if before is not None:
        after = _answers(arguments.path, np.load(arguments.images))
        print(f"answers that changed: {np.mean(before != after):.2%} of {len(before):,} images")
    return 0 if found.whole else 1


def _answers(path: str, images: np.ndarray) -> np.ndarray:
    with open(path, "rb") as file:
        return run(open_interpreter(file.read()), images)[0].reshape(len(images), -1).argmax(-1)


def main(arguments) -> int:
    """Runs a command; returns the exit status."""
    return arguments.run(arguments)


if __name__ == "__main__":
    sys.exit(app.run(main, flags_parser=lambda argv: parser().parse_args(argv[1:])))
