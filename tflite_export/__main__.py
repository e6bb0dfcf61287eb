"""The command line: `satkeras`, or `python -m tflite_export`.

The status is 0, 1 where a check says no, 2 for a wrong use.
"""

import argparse
import os
import sys

from absl import app
from absl.flags import argparse_flags

from tflite_export.errors import ExportError

_EXAMPLES = """examples:
  satkeras quantize float.keras w4a4.keras --bits=4 --data=images.npy
  satkeras export w4a4.keras model.tflite --target=coral --data=images.npy --labels=labels.txt
  satkeras verify model.tflite w4a4.keras --data=images.npy
  satkeras inspect model.tflite
  satkeras portable other_tools.tflite portable.tflite --images=images.npy
"""
_DATA = "images as the model takes them: .npy, .npz (an array an input), or a folder of .png or .jpg files of one size"


def parser() -> argparse.ArgumentParser:
    """Every command with its arguments; `command` names the function of `commands.py` that runs it."""
    found = argparse_flags.ArgumentParser(
        prog="satkeras",
        description="Low-bit Keras models and the .tflite files that compute their integers.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--debug", action="store_true", help="show where an error comes from")
    commands = found.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, **arguments: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        for argument, metavar in arguments.items():
            one.add_argument(argument, metavar=metavar)
        one.add_argument("--json", action="store_true", help="print JSON")
        return one

    quantize = add("quantize", "quantize a float model by calibration alone", model="MODEL", path="OUT.keras")
    quantize.add_argument("--data", required=True, help=_DATA)
    quantize.add_argument("--scheme", default="sat", help="sat (default), pact, dorefa, int8, lsq or qn")
    quantize.add_argument("--bits", type=int, default=4, help="of weights and activations (default 4)")
    quantize.add_argument("--weight_bits", help="of weights alone; for qn also ternary, 3bit+-2, 3bit+-4")
    quantize.add_argument("--activation_bits", type=int, help="of activations alone")
    quantize.add_argument(
        "--rounding",
        default="output",
        choices=["output", "nearest"],
        help="integers of weights by their layers' outputs (default), or the nearest: faster, and to be trained on",
    )
    quantize.add_argument("--input_range", nargs=2, type=float, default=(0.0, 255.0), metavar=("LOW", "HIGH"))

    export = add("export", "write a quantized model as a .tflite file", model="MODEL", path="OUT.tflite")
    export.add_argument("--data", help=f"to verify with: {_DATA}")
    export.add_argument("--target", default="android", help="what takes the file, see `satkeras targets`")
    export.add_argument("--labels", help="a text file with a class a line")
    export.add_argument("--weight_storage", choices=["int8", "packed"])
    export.add_argument("--portable", action="store_true", help="the same integers on every runtime, proved")

    verify = add("verify", "compare a file, integer by integer, with its model", file="FILE", model="MODEL")
    verify.add_argument("--data", required=True, help=_DATA)
    verify.add_argument("--target", default="android", help="what the file was made for")
    verify.add_argument("--kernels", default="xnnpack", choices=["xnnpack", "reference"])

    inspect = add("inspect", "list a file's operators, tensors, grids and bytes", file="FILE")
    inspect.add_argument("--data", help=f"to say which integers each tensor uses: {_DATA}")

    check = add("check", "say whether a target takes a file", file="FILE")
    check.add_argument("--target", required=True, help="see `satkeras targets`")

    add("targets", "list what takes the files")

    add("summary", "show the bits, grids and bytes of a quantized model's layers", model="MODEL")

    benchmark = add("benchmark", "time a file in LiteRT on this machine", file="FILE")
    benchmark.add_argument("--threads", type=int, default=1)
    benchmark.add_argument("--runs", type=int, default=100)

    text = "rewrite an int8 file of any tool so that every runtime gives the same integers"
    portable = add("portable", text, source="IN.tflite", path="OUT.tflite")
    portable.add_argument("--images", metavar="IMAGES.npy", help="to say how many answers change")
    return found


def main(arguments) -> int:
    """Runs a command; returns the exit status."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # a terminal is for results
    from tflite_export import commands  # TensorFlow, which help needs not

    try:
        return getattr(commands, arguments.command)(arguments)
    except (ExportError, ValueError, TypeError, OSError) as error:
        if arguments.debug:
            raise
        print(f"satkeras {arguments.command}: {error}", file=sys.stderr)
        return 1 if isinstance(error, ExportError) else 2


def run() -> None:
    """The console script."""
    app.run(main, flags_parser=lambda argv: parser().parse_args(argv[1:]))


if __name__ == "__main__":
    run()
