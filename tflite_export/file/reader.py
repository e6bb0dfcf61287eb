"""A `.tflite` file read back: against its plan, number by number, and its constants as arrays."""

import dataclasses
import re
from collections.abc import Iterator

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tflite_export.errors import ExportError
from tflite_export.file.writer import FILE_IDENTIFIER, model_of, packed
from tflite_export.plan import Plan

# Neither a runtime nor what calls it by its signature reads them.
_MEANINGLESS = re.compile(r"file(\.subgraphs\[\d+\](\.tensors\[\d+\])?\.name|\.description)")


def check_file(plan: Plan, content: bytes, input_type: str, output_type: str, description: str = "") -> None:
    """Reads a file back and compares it with the plan, number by number.

    The names of tensors and the description may differ, nothing else. What reads alike must consist of the same bytes,
    too: another reader of damaged bytes, such as a runtime's, might find something else in them.

    Raises:
      ExportError: naming everything that differs.
    """
    check_model(model_of(plan, input_type, output_type, description), content)


def check_model(planned: schema.ModelT, content: bytes) -> schema.ModelT:
    """The same for the object that the bytes were packed from; returns what was read."""
    found = read_model(content)
    problems = list(_differences(found, planned, "file"))
    if problems:
        raise ExportError("The file is not what was planned", problems[:20])
    if packed(found) != content:
        raise ExportError("The file is damaged", [("file", "its bytes are not those that its content is written as")])
    return found


def read_model(content: bytes) -> schema.ModelT:
    """A file as an object of the schema.

    Raises:
      ExportError: the bytes are no whole `.tflite` file.
    """
    if content[4:8] != FILE_IDENTIFIER:
        raise ExportError("The file cannot be read", [("file", f"bytes 4 to 8 are {content[4:8]!r}, not 'TFL3'")])
    try:
        return schema.ModelT.InitFromPackedBuf(content, 0)
    except Exception as error:  # Damaged offsets lead anywhere: struct.error, ValueError, TypeError, ...
        raise ExportError("The file cannot be read", [("file", f"damaged or cut short: {error}")]) from error


@dataclasses.dataclass(frozen=True, eq=False)
class StoredConstant:
    """A quantized constant of a file.

    Attributes:
      values: its integers, in the file's layout.
      scale: float64 (n,).
      zero_point: int64 (n,).
      axis: the axis that `scale` runs along.
    """

    values: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int


def read_constant(model: schema.ModelT, tensor: schema.TensorT) -> StoredConstant:
    """The integers and the grid of one constant.

    Raises:
      ExportError: it has none.
    """
    name, data = _text(tensor.name), model.buffers[tensor.buffer].data
    bits = {schema.TensorType.INT8: 8, schema.TensorType.INT32: 32}.get(tensor.type)
    if bits is None:
        bits = {getattr(schema.TensorType, f"INT{n}", None): n for n in (4, 2)}.get(tensor.type)
    if data is None or bits is None or tensor.quantization is None:
        raise ExportError("The file is not what was planned", [(name, "is no quantized constant")])
    values = _unpacked(np.frombuffer(memoryview(data), np.uint8), bits, int(np.prod(np.asarray(tensor.shape)))).reshape(
        tensor.shape
    )
    grid = tensor.quantization
    return StoredConstant(
        values, np.asarray(grid.scale, np.float64), np.asarray(grid.zeroPoint, np.int64), grid.quantizedDimension
    )


def _unpacked(data: np.ndarray, bits: int, count: int) -> np.ndarray:
    if bits == 32:
        return data.view(np.int32)
    if bits == 8:
        return data.view(np.int8)
    shifts = bits * np.arange(8 // bits, dtype=np.uint8)
    codes = (data[:, None] >> shifts & (2**bits - 1)).ravel()[:count].astype(np.int64)
    return np.where(codes >= 2 ** (bits - 1), codes - 2**bits, codes)


def _differences(found, planned, where: str) -> Iterator[tuple[str, str]]:
    """Pairs of place and reason, over two trees of the schema's objects."""
    if isinstance(planned, (list, tuple)) and planned and hasattr(planned[0], "__dict__"):
        if found is None or len(found) != len(planned):
            yield where, f"holds {0 if found is None else len(found)}, planned {len(planned)}"
            return
        for place, (one, other) in enumerate(zip(found, planned, strict=True)):
            yield from _differences(one, other, f"{where}[{place}]")
    elif hasattr(planned, "__dict__"):
        if type(found).__name__.lstrip("_") != _schema_name(planned):
            yield where, f"is {type(found).__name__}, planned {_schema_name(planned)}"
            return
        for field, value in vars(planned).items():
            yield from _differences(getattr(found, field), value, f"{where}.{field}")
    elif _MEANINGLESS.fullmatch(where):
        if not _is_text(found):
            yield where, f"is {found!r}, no text; planned {planned!r}"
    elif not _same(found, planned):
        yield where, f"is {_shown(found)}, planned {_shown(planned)}"


def _schema_name(value) -> str:
    return "BufferT" if isinstance(value, schema.BufferT) else type(value).__name__


def _same(found, planned) -> bool:
    if isinstance(planned, str):
        return _text(found) == planned
    if isinstance(planned, bytes):
        return found is not None and bytes(found) == planned
    if isinstance(planned, (list, np.ndarray)):
        return np.array_equal(np.asarray([] if found is None else found), np.asarray(planned))
    if planned is None:
        return found is None or not np.size(found)
    return bool(np.all(found == planned))


def _is_text(value) -> bool:
    try:
        return value is None or value.decode() is not None
    except UnicodeDecodeError:
        return False


def _text(value) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _shown(value) -> str:
    text = f"{len(value)} bytes" if isinstance(value, bytes) else repr(_text(value))
    return text if len(text) <= 60 else f"{text[:57]}..."
