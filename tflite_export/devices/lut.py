"""TFLite Micro's compression of weights by look-up tables: indices of 1 to 7 bits into a table for each channel.

A compressed kernel is two constants, its packed indices and its tables, and an operator TFLM_DECODE, which writes the
kernel into the arena just before the operator that reads it. The values, and so the file's integers, stay as they are.

References:
  tensorflow/lite/micro/compression (lut.py, decode_insert.py) and kernels/decode_state_lut.cc of
  github.com/tensorflow/tflite-micro.
"""

import copy
import dataclasses

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from satkeras.quantizers.int8 import narrowed
from tflite_export.errors import ExportError
from tflite_export.file.writer import packed

OPERATOR = b"TFLM_DECODE"
HEADER_BYTES = 16  # of the tables' constant: type, version, two reserved, then version, axis and bits, table's length
_WHOLE_TENSOR = 15  # as axis: one table
_LARGEST_BITS = 7


@dataclasses.dataclass(frozen=True, eq=False)
class Compressed:
    """A constant as indices and tables.

    Attributes:
      indices: bytes, the first index in the highest bits.
      tables: bytes, with their header.
    """

    indices: bytes
    tables: bytes

    @property
    def size(self) -> int:
        """Bytes of both."""
        return len(self.indices) + len(self.tables)


def compress(values: np.ndarray, axis: int | None) -> Compressed | None:
    """A constant's integers as indices into a table for each channel; None where it has too many different ones.

    Args:
      values: int8.
      axis: the channels', 0 or the last; None for one table.
    """
    channels = [values.ravel()] if axis is None else list(np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1))
    tables = [np.unique(channel) for channel in channels]
    length = max(len(table) for table in tables)
    bits = max((length - 1).bit_length(), 1)
    if bits > _LARGEST_BITS:
        return None
    found = np.stack([np.searchsorted(table, channel) for table, channel in zip(tables, channels, strict=True)])
    if axis is not None:
        rest = tuple(size for place, size in enumerate(values.shape) if place != axis)
        found = np.moveaxis(found.reshape(-1, *rest), 0, axis)
    header = np.zeros(HEADER_BYTES, np.uint8)
    header[[1, 4, 5, 6]] = 1, 1, (_WHOLE_TENSOR if axis is None else axis) << 4 | bits, length
    padded = np.zeros((len(tables), length), np.int8)
    for row, table in zip(padded, tables, strict=True):
        row[: len(table)] = table
    # Each index as its bits, the highest first.
    binary = narrowed(found.reshape(-1, 1), np.uint8) >> np.arange(bits)[::-1] & 1
    return Compressed(np.packbits(binary).tobytes(), header.tobytes() + padded.tobytes())


def decompress(compressed: Compressed, shape: tuple[int, ...]) -> np.ndarray:
    """int8 values of that shape, as TFLM_DECODE computes them."""
    header = np.frombuffer(compressed.tables[:HEADER_BYTES], np.uint8)
    axis, bits, length = int(header[5]) >> 4, int(header[5]) & 7, int(header[6])
    tables = np.frombuffer(compressed.tables[HEADER_BYTES:], np.int8).reshape(-1, length)
    binary = np.unpackbits(np.frombuffer(compressed.indices, np.uint8))[: int(np.prod(shape)) * bits]
    indices = binary.reshape(-1, bits) @ (1 << np.arange(bits)[::-1])
    if axis == _WHOLE_TENSOR:
        return tables[0][indices].reshape(shape)
    rows = np.moveaxis(indices.reshape(shape), axis, 0)
    return np.moveaxis(np.stack([table[row] for table, row in zip(tables, rows, strict=True)]), 0, axis)


def with_tables(model: schema.ModelT) -> bytes:
    """The bytes of a file whose kernels are compressed wherever that makes them smaller."""
    model, graph = copy.copy(model), copy.copy(model.subgraphs[0])
    model.subgraphs = [graph, *model.subgraphs[1:]]
    graph.tensors, model.buffers = list(graph.tensors), list(model.buffers)
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode, code.version = OPERATOR, 1
    operators = []
    for operator in graph.operators:
        decode = _decoding(model, graph, operator)
        if decode is not None:
            decode.opcodeIndex = len(model.operatorCodes)
            operator = copy.copy(operator)
            operator.inputs = [operator.inputs[0], decode.outputs[0], *operator.inputs[2:]]
            operators.append(decode)
        operators.append(operator)
    if len(operators) > len(graph.operators):
        model.operatorCodes = [*model.operatorCodes, code]
    graph.operators = operators
    return packed(_without_unused_buffers(model))


def _decoding(model: schema.ModelT, graph: schema.SubGraphT, operator: schema.OperatorT) -> schema.OperatorT | None:
    """The operator that writes one's kernel, its tensors added; None where the kernel stays as it is."""
    if operator.builtinOptionsType not in _WITH_KERNELS:
        return None
    place = operator.inputs[1]
    kernel = graph.tensors[place]
    data, grid = model.buffers[kernel.buffer].data, kernel.quantization
    if data is None or kernel.type != schema.TensorType.INT8:
        return None
    values = np.frombuffer(memoryview(data), np.int8).reshape(kernel.shape)
    compressed = compress(values, grid.quantizedDimension if len(grid.scale) > 1 else None)
    if compressed is None or compressed.size >= values.size:
        return None
    if not np.array_equal(decompress(compressed, values.shape), values):
        raise ExportError("The compressed file would not be exact", [(kernel.name.decode(), "decodes to other values")])
    decoded = copy.copy(kernel)
    decoded.name, decoded.buffer = kernel.name + b"/decoded", 0
    graph.tensors[place] = _bytes_tensor(model, kernel.name, compressed.indices)
    graph.tensors += [_bytes_tensor(model, kernel.name + b"/tables", compressed.tables), decoded]
    decode = schema.OperatorT()
    decode.inputs, decode.outputs = [place, len(graph.tensors) - 2], [len(graph.tensors) - 1]
    return decode


_WITH_KERNELS = (
    schema.BuiltinOptions.Conv2DOptions,
    schema.BuiltinOptions.DepthwiseConv2DOptions,
    schema.BuiltinOptions.FullyConnectedOptions,
    schema.BuiltinOptions.TransposeConvOptions,
)


def _bytes_tensor(model: schema.ModelT, name: bytes, content: bytes) -> schema.TensorT:
    tensor, buffer = schema.TensorT(), schema.BufferT()
    buffer.data = content
    model.buffers.append(buffer)
    tensor.name, tensor.shape, tensor.type = name, [len(content)], schema.TensorType.UINT8
    tensor.buffer = len(model.buffers) - 1
    return tensor


def _without_unused_buffers(model: schema.ModelT) -> schema.ModelT:
    """The model without the kernels' old buffers, which no tensor names any more."""
    tensors, entries = model.subgraphs[0].tensors, model.metadata or []
    kept = sorted({0, *(tensor.buffer for tensor in tensors), *(entry.buffer for entry in entries)})
    places = {old: new for new, old in enumerate(kept)}
    model.buffers = [model.buffers[old] for old in kept]
    model.subgraphs[0].tensors = [_at(tensor, places) for tensor in tensors]
    model.metadata = [_at(entry, places) for entry in entries]
    return model


def _at(one, places: dict[int, int]):
    moved = copy.copy(one)
    moved.buffer = places[one.buffer]
    return moved
