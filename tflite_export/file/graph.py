"""A file's operators with what they read and write, for those who judge a whole file."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

BUILTINS = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
TYPES = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}


@dataclasses.dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor of a file.

    Attributes:
      name: as stored.
      shape: with the batch axis.
      type: its name in TFLite's schema.
      data: the bytes of a constant, None of any other.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    data: np.ndarray | None

    @property
    def is_constant(self) -> bool:
        """Whether the file holds its values."""
        return self.data is not None


@dataclasses.dataclass(frozen=True, eq=False)
class StoredOperator:
    """An operator of a file.

    Attributes:
      builtin: its name in TFLite's schema, or that of a custom operator.
      version: of the operator.
      inputs: what it reads, None for an input that is left out.
      outputs: what it writes.
      options: an object of the schema, None if it has none.
    """

    builtin: str
    version: int
    inputs: tuple[StoredTensor | None, ...]
    outputs: tuple[StoredTensor, ...]
    options: Any

    @property
    def name(self) -> str:
        """Of the tensor that it writes first, which is the Keras layer's."""
        return self.outputs[0].name

    @property
    def activations(self) -> tuple[StoredTensor, ...]:
        """What it reads that is no constant."""
        return tuple(x for x in self.inputs if x is not None and not x.is_constant)

    @property
    def constants(self) -> tuple[StoredTensor, ...]:
        """What it reads that is."""
        return tuple(x for x in self.inputs if x is not None and x.is_constant)


def stored_operators(model: schema.ModelT) -> Iterator[StoredOperator]:
    """The operators of the main graph, in the file's order; equal tensors are one object."""
    graph = model.subgraphs[0]
    tensors = [_tensor(model, tensor) for tensor in graph.tensors]
    for operator in graph.operators:
        builtin, version = _code(model.operatorCodes[operator.opcodeIndex])
        yield StoredOperator(
            builtin,
            version,
            tuple(tensors[index] if index >= 0 else None for index in operator.inputs),
            tuple(tensors[index] for index in operator.outputs),
            operator.builtinOptions,
        )


def _tensor(model: schema.ModelT, tensor: schema.TensorT) -> StoredTensor:
    data = model.buffers[tensor.buffer].data
    shape = () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
    data = None if data is None or not len(data) else np.frombuffer(memoryview(data), np.uint8)
    return StoredTensor(tensor.name.decode(errors="replace"), shape, TYPES[tensor.type], data)


def _code(code: schema.OperatorCodeT) -> tuple[str, int]:
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    if number == schema.BuiltinOperator.CUSTOM:
        return code.customCode.decode(), code.version
    return BUILTINS.get(number, f"BUILTIN_{number}"), code.version
