"""The main graph of a `.tflite` file, as far as a rewrite reads and changes it."""

import copy
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tflite_export.file.graph import BUILTINS

_TYPES = {schema.TensorType.INT8: np.int8, schema.TensorType.INT32: np.int32}
_ACTIVATIONS = {value: name for name, value in vars(schema.ActivationFunctionType).items() if isinstance(value, int)}


class FileGraph:
    """The main graph of a model object; what is changed through it changes the object.

    Attributes:
      model: TFLite's own object.
      lowest: for a tensor's index, the lowest integer that its writer's fused activation lets through.
      highest: the highest.
    """

    def __init__(self, model: schema.ModelT):
        self.model = model
        self.graph = model.subgraphs[0]
        self.lowest: dict[int, int] = {}
        self.highest: dict[int, int] = {}

    @property
    def operators(self) -> Any:
        """The operators, in the order of computation."""
        return self.graph.operators

    def builtin(self, operator) -> str:
        """The name of an operator's kind."""
        code = self.model.operatorCodes[operator.opcodeIndex]
        return BUILTINS[max(code.builtinCode, code.deprecatedBuiltinCode)]

    def name(self, index: int) -> str:
        """A tensor's name."""
        name = self.graph.tensors[index].name
        return name.decode(errors="replace") if isinstance(name, bytes) else str(name)

    def tensor(self, index: int):
        """A tensor by its index."""
        return self.graph.tensors[index]

    def is_int8(self, index: int) -> bool:
        """Whether it holds int8 integers on a grid."""
        tensor = self.tensor(index)
        return tensor.type == schema.TensorType.INT8 and self._has_grid(tensor)

    def _has_grid(self, tensor) -> bool:
        return tensor.quantization is not None and np.size(tensor.quantization.scale) > 0

    def scales(self, index: int) -> np.ndarray:
        """float32 (n,), the sizes of its steps."""
        return np.asarray(self.tensor(index).quantization.scale, np.float32)

    def scale(self, index: int) -> np.float32:
        """The one of a tensor that has one."""
        return np.float32(self.scales(index)[0])

    def zero_point(self, index: int) -> int:
        """Of a tensor that has one."""
        return int(np.asarray(self.tensor(index).quantization.zeroPoint).ravel()[0])

    def set_scale(self, index: int, scale) -> None:
        """Gives a tensor other sizes of steps."""
        self.tensor(index).quantization.scale = np.atleast_1d(np.asarray(scale, np.float32))

    def values(self, index: int) -> np.ndarray | None:
        """The integers of a constant, None for what is no constant of int8 or int32."""
        tensor = self.tensor(index)
        data = self.model.buffers[tensor.buffer].data
        if data is None or not len(data) or tensor.type not in _TYPES:
            return None
        return np.frombuffer(bytes(data), _TYPES[tensor.type]).reshape(tensor.shape)

    def codes(self, index: int) -> np.ndarray:
        """int64: the integers that a tensor can hold, a constant's own."""
        values = self.values(index)
        if values is not None:
            return np.unique(values).astype(np.int64)
        return np.arange(self.lowest.get(index, -128), self.highest.get(index, 127) + 1, dtype=np.int64)

    def fused(self, operator) -> str:
        """The name of an operator's fused activation."""
        return _ACTIVATIONS[getattr(operator.builtinOptions, "fusedActivationFunction", 0)]

    def clamp(self, operator) -> tuple[int, int]:
        """The lowest and highest integer of an operator's output.

        Raises:
          ValueError: a fused activation that kernels of int8 do not know.
        """
        (index,) = operator.outputs
        zero, scale, name = self.zero_point(index), self.scale(index), self.fused(operator)
        ends = {"NONE": (None, None), "RELU": (0, None), "RELU6": (0, 6), "RELU_N1_TO_1": (-1, 1)}
        if name not in ends:
            raise ValueError(f"the fused activation {name}")
        low, high = (None if end is None else zero + _away(np.float32(end) / scale) for end in ends[name])
        return max(-128, -128 if low is None else low), min(127, 127 if high is None else high)

    def note_clamp(self, operator) -> None:
        """Remembers which integers an operator's output can hold."""
        (index,) = operator.outputs
        self.lowest[index], self.highest[index] = self.clamp(operator)

    def add_constant(self, like: int | None, name: str, values: np.ndarray, scale: np.ndarray, axis: int = 0) -> int:
        """A new constant tensor with the zero point 0; returns its index."""
        tensor = schema.TensorT() if like is None else copy.deepcopy(self.tensor(like))
        tensor.name, tensor.shape = name, list(values.shape)
        tensor.type = next(kind for kind, dtype in _TYPES.items() if values.dtype == dtype)
        if like is None or tensor.quantization is None:
            tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale = np.asarray(scale, np.float32)
        tensor.quantization.zeroPoint = np.zeros(len(np.atleast_1d(scale)), np.int64)
        tensor.quantization.quantizedDimension = axis
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        tensor.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def add_copy(self, index: int, scale) -> int:
        """A new tensor with another's contents and other sizes of steps; returns its index."""
        self.graph.tensors.append(copy.deepcopy(self.tensor(index)))
        self.set_scale(len(self.graph.tensors) - 1, scale)
        return len(self.graph.tensors) - 1

    def add_tensor(self, like: int, name: str, shape) -> int:
        """A new activation on another's grid; returns its index."""
        tensor = copy.deepcopy(self.tensor(like))
        tensor.name, tensor.shape, tensor.buffer = name, list(shape), 0
        tensor.shapeSignature = None
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def code(self, builtin: str, version: int) -> int:
        """The index of an operator code, which is added if the file has none."""
        wanted = getattr(schema.BuiltinOperator, builtin)
        for index, code in enumerate(self.model.operatorCodes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == wanted and code.version >= version:
                return index
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = wanted, min(wanted, 127), version
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1


def _away(value) -> int:
    return int(np.trunc(value + np.copysign(np.float32(0.5), value)))
