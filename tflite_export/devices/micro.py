"""TFLite Micro: a file as C++ source, the operators that it registers, and the arena that it needs.

    python -m tflite_export.devices.micro model.tflite --python=VENV/bin/python

measures the arena of a file with the package tflite-micro in that Python's environment.
"""

import argparse
import importlib.util
import math
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

from tensorflow.lite.python import schema_py_generated as schema

from tflite_export.devices.contract import Checked, Delivered, Exact
from tflite_export.devices.lut import OPERATOR as DECODE
from tflite_export.devices.lut import with_tables
from tflite_export.file.graph import StoredOperator, StoredTensor, stored_operators
from tflite_export.file.reader import read_model

ALIGNMENT = 16
# Operators of micro_mutable_op_resolver.h that a file of integers may have.
OPERATORS = frozenset(
    "ADD ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND CAST CONCATENATION CONV_2D DEPTH_TO_SPACE "
    "DEPTHWISE_CONV_2D DEQUANTIZE DIV ELU EXPAND_DIMS FULLY_CONNECTED GATHER GATHER_ND HARD_SWISH L2_NORMALIZATION "
    "LEAKY_RELU LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG PACK PAD PADV2 PRELU QUANTIZE "
    "REDUCE_MAX REDUCE_MIN RELU RELU6 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SLICE SOFTMAX "
    "SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM TANH TRANSPOSE "
    "TRANSPOSE_CONV UNPACK".split()
)
_BYTES = {"INT8": 1, "UINT8": 1, "INT16": 2, "INT32": 4, "FLOAT32": 4, "INT64": 8}
_MEASURE = (
    "import sys; from tflite_micro import runtime; runtime.Interpreter.from_file(sys.argv[1], "
    "intrepreter_config=runtime.InterpreterConfig.kAllocationRecording).print_allocations()"  # their spelling
)


def check(model: schema.ModelT) -> Checked:
    """Problems are operators that TFLite Micro has not."""
    missing = {one.builtin: one.name for one in stored_operators(model) if one.builtin not in OPERATORS}
    return Checked(tuple((layer, f"TFLite Micro has no {builtin}") for builtin, layer in missing.items()))


def resolver_lines(operators: Sequence[StoredOperator]) -> list[str]:
    """The calls of a MicroMutableOpResolver that register a file's operators, each once."""
    return [f"Add{_camel(builtin)}" for builtin in dict.fromkeys(one.builtin for one in operators)]


def _camel(builtin: str) -> str:
    """CONV_2D as Conv2D, as the resolver's methods are called."""
    if builtin == DECODE.decode():
        return "Decode"
    return "".join(part.title() if part[0].isalpha() else part for part in builtin.split("_"))


def arena_estimate(operators: Sequence[StoredOperator]) -> int:
    """Bytes of an arena that should be enough: the tensors that live at once, and what an interpreter keeps.

    The interpreter's own are as measured on a 64-bit machine, with room; a microcontroller's pointers are smaller.
    """
    born, last = {}, {}
    for place, operator in enumerate(operators):
        for x in (*operator.activations, *operator.outputs):
            born.setdefault(x, place)
            last[x] = place
    written = {x for operator in operators for x in operator.outputs}
    read = {x for operator in operators for x in operator.activations}
    for x in born:
        born[x] = born[x] if x in written else 0  # an input
        last[x] = last[x] if x in read else len(operators)  # an output
    alive = [sum(_size(x) for x in born if born[x] <= place <= last[x]) for place in range(len(operators))]
    channels = sum(x.shape[0] for operator in operators for x in operator.constants if x.type == "INT32" and x.shape)
    kept = 2048 + 256 * len(operators) + 64 * len(born) + 16 * channels
    return _aligned(max(alive, default=0) + kept)


def _size(x: StoredTensor) -> int:
    return _aligned(math.prod(x.shape) * _BYTES[x.type])


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def measured_arena(path: pathlib.Path, python: str = sys.executable) -> int:
    """Bytes of the arena that TFLite Micro's interpreter takes for a file on this 64-bit machine.

    Args:
      path: the file.
      python: a Python with the package tflite-micro.

    Raises:
      RuntimeError: it does not take the file, or has no such package; with what it said.
    """
    done = subprocess.run([python, "-c", _MEASURE, path], capture_output=True, text=True, errors="replace")
    said = done.stdout + done.stderr
    found = re.search(r"Arena allocation total (\d+) bytes", said)
    if done.returncode or not found:
        raise RuntimeError(f"TFLite Micro must take the file {path}. Received, from {python}:\n{said.strip()[-2000:]}")
    return _aligned(int(found.group(1)))


def has_tflite_micro() -> bool:
    """Whether this Python can measure an arena."""
    return importlib.util.find_spec("tflite_micro") is not None


def deliver(exact: Exact) -> Delivered:
    """The file, its kernels compressed if so wished, and `.cc` and `.h` beside it."""
    content = with_tables(exact.model) if exact.compress == "lut" else exact.content
    model, name = read_model(content), exact.path.stem
    labels = {
        "kLabels" if len(exact.plan.outputs) == 1 else f"kLabels_{identifier(one)}": lines
        for one, lines in exact.labels.items()
    }
    arena, how = _arena(model, content)
    files = {
        exact.path.with_suffix(".cc"): source(content, name),
        exact.path.with_suffix(".h"): header(model, content, name, labels, arena, how),
        exact.path: content,
    }
    notes = [f"arena {arena:,} bytes, {how}", f"{name}.cc and {name}.h beside the file"]
    if exact.compress == "lut":
        notes.append(f"kernels in look-up tables: {len(content):,} bytes for {len(exact.content):,}")
    return Delivered(files, tuple(notes))


def _arena(model: schema.ModelT, content: bytes) -> tuple[int, str]:
    """The size of the arena, and how it was found."""
    if not has_tflite_micro():
        return arena_estimate(list(stored_operators(model))), "estimated: tflite-micro is not installed here"
    with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
        file.write(content)
        file.flush()
        return measured_arena(pathlib.Path(file.name)), "measured on this 64-bit machine"


def source(content: bytes, name: str) -> bytes:
    """`model.cc`: the file as an array that is aligned as TFLite Micro needs it."""
    rows = [", ".join(f"0x{byte:02x}" for byte in content[at : at + 16]) for at in range(0, len(content), 16)]
    lines = [
        f'#include "{name}.h"',
        "",
        f"namespace {identifier(name)} {{",
        "",
        f"alignas({ALIGNMENT}) const unsigned char kModel[kModelBytes] = {{",
        *(f"    {row}," for row in rows),
        "};",
        "",
        f"}}  // namespace {identifier(name)}",
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def header(
    model: schema.ModelT, content: bytes, name: str, labels: Mapping[str, Sequence[str]], arena: int, how: str
) -> bytes:
    """`model.h`: what a program needs to run it.

    Args:
      model: what was read from the bytes.
      content: the bytes.
      name: of the files.
      labels: of outputs, by the names that they have in C++.
      arena: bytes.
      how: that number was found.
    """
    operators = list(stored_operators(model))
    calls = resolver_lines(operators)
    guard = f"{identifier(name).upper()}_H_"
    lines = [
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <cstddef>",
        "",
        '#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"',
        "",
        f"namespace {identifier(name)} {{",
        "",
        f"constexpr size_t kModelBytes = {len(content)};",
        "extern const unsigned char kModel[kModelBytes];",
        "",
        f"// {how[0].upper()}{how[1:]}.",
        f"constexpr size_t kArenaBytes = {arena};",
        "",
        *(line for one, lines in labels.items() for line in _label_lines(one, lines)),
        f"using OpResolver = tflite::MicroMutableOpResolver<{len(calls)}>;",
        "",
        "inline TfLiteStatus RegisterOps(OpResolver& resolver) {",
        *(f"  TF_LITE_ENSURE_STATUS(resolver.{call}());" for call in calls),
        "  return kTfLiteOk;",
        "}",
        "",
        f"}}  // namespace {identifier(name)}",
        "",
        f"#endif  // {guard}",
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def _label_lines(name: str, labels: Sequence[str]) -> list[str]:
    quoted = (label.replace("\\", "\\\\").replace('"', '\\"') for label in labels)
    return [f"constexpr const char* {name}[] = {{", *(f'    "{label}",' for label in quoted), "};", ""]


def identifier(name: str) -> str:
    """A file's name as a C++ identifier."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"model_{plain}" if not plain or plain[0].isdigit() else plain


def main() -> None:
    """Measures what the command line says."""
    parser = argparse.ArgumentParser(description="Measures the arena of a file.")
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--python", default=sys.executable, help="a Python with the package tflite-micro")
    arguments = parser.parse_args()
    print(f"constexpr size_t kArenaBytes = {measured_arena(arguments.file, arguments.python)};")


if __name__ == "__main__":
    main()
