"""A plan as the bytes of a `.tflite` file, through TFLite's own schema."""

import copy
from collections.abc import Mapping

import flatbuffers
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tflite_export.errors import ExportError
from tflite_export.plan import Constant, Operator, Plan, Tensor, new_name

TYPES = {"uint8": schema.TensorType.UINT8, "int8": schema.TensorType.INT8, "float32": schema.TensorType.FLOAT32}
FILE_IDENTIFIER = b"TFL3"
ALIGNMENT = 16
SIGNATURE = "serving_default"


def write_file(plan: Plan, input_type: str = "uint8", output_type: str = "int8", description: str = "") -> bytes:
    """The whole file, batch 1. Equal plans give equal bytes.

    Args:
      plan: what the file is to compute.
      input_type: "uint8", "int8" or "float32"; the first and the last need a QUANTIZE.
      output_type: the same; "uint8" needs a QUANTIZE, "float32" a DEQUANTIZE.
      description: stored as the file's.
    """
    return packed(model_of(plan, input_type, output_type, description))


def model_of(
    plan: Plan, input_type: str, output_type: str, description: str, metadata: Mapping[str, bytes] | None = None
) -> schema.ModelT:
    """The file as an object of the schema; `metadata` are further buffers, by their names."""
    file = FileWriter(plan)
    inputs = [file.model_input(x, input_type) for x in plan.inputs]
    for operator in plan.operators:
        operator.write(file)
    outputs = [file.model_output(x, output_type) for x in plan.outputs]
    return file.finished(inputs, outputs, description, metadata or {})


class FileWriter:
    """A file that operators add themselves to."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self._known_names = {constant.name for operator in plan.operators for constant in operator.constants()}
        self._names = _file_names(plan, self._known_names)
        self._tensors: list[schema.TensorT] = []
        self._operators: list[schema.OperatorT] = []
        self._codes: dict[tuple[str, int, str], int] = {}
        self._buffers: dict[bytes, int] = {b"": 0}  # buffer 0 is empty, by the schema's rule
        self._indices: dict[Tensor | str, int] = {}

    def activation(self, tensor: Tensor) -> int:
        """The index of an int8 activation."""
        if tensor not in self._indices:
            grid = _quantization([tensor.scale], tensor.zero_point)
            self._indices[tensor] = self._add_tensor(
                self._names[tensor], (1, *tensor.shape), schema.TensorType.INT8, quantization=grid
            )
        return self._indices[tensor]

    def constant(self, constant: Constant) -> int:
        """The index of a constant; equal contents share a buffer."""
        kind = _constant_type(constant)
        grid = None if constant.scale is None else _quantization(constant.scale, constant.zero_point, constant.axis)
        content = _packed_bytes(constant)
        return self._add_tensor(constant.name, constant.values.shape, kind, content, grid)

    def whole_numbers(self, name: str, shape: tuple[int, ...]) -> int:
        """The index of an int32 tensor inside one operator of the plan that is several in the file."""
        return self._add_tensor(new_name(name, self._known_names), (1, *shape), schema.TensorType.INT32)

    def part(self, builtin: str, version: int, inputs: list[int], output: int, options) -> None:
        """Adds one of the operators that together are one of the plan, each older than every runtime that is named."""
        self._add_operator((builtin, version, "1.5.0"), inputs, output, options)

    def operator(self, operator: Operator, inputs: list[int], output: int) -> None:
        """Adds an operator that reads and writes tensors of these indices."""
        self._add_operator((operator.builtin, operator.version, operator.runtime), inputs, output, operator.options())

    def model_input(self, tensor: Tensor, kind: str) -> int:
        """The index of an input of the file, quantized to `tensor` if it has another type."""
        inside = self.activation(tensor)
        if kind == "int8":
            return inside
        outside = self._boundary(tensor, kind)
        self._add_operator(("QUANTIZE", 1, "1.14.0"), [outside], inside, schema.QuantizeOptionsT())
        return outside

    def model_output(self, tensor: Tensor, kind: str) -> int:
        """The index of an output of the file, converted from `tensor` if it has another type."""
        inside = self.activation(tensor)
        if kind == "int8":
            return inside
        outside = self._boundary(tensor, kind)
        if kind == "uint8":
            self._add_operator(("QUANTIZE", 1, "1.14.0"), [inside], outside, schema.QuantizeOptionsT())
        else:
            self._add_operator(("DEQUANTIZE", 2, "1.14.0"), [inside], outside, schema.DequantizeOptionsT())
        return outside

    def finished(
        self, inputs: list[int], outputs: list[int], description: str, metadata: Mapping[str, bytes]
    ) -> schema.ModelT:
        """The whole model."""
        graph = schema.SubGraphT()
        graph.name = "main"
        graph.tensors, graph.operators, graph.inputs, graph.outputs = self._tensors, self._operators, inputs, outputs
        model = schema.ModelT()
        model.version = 3
        model.description = description
        model.subgraphs = [graph]
        model.operatorCodes = [_operator_code(name, version) for name, version, _ in self._codes]
        model.signatureDefs = [_signature(self.plan, inputs, outputs)]
        newest = max((runtime for *_, runtime in self._codes), key=_as_numbers, default="1.5.0")
        named = {"min_runtime_version": newest.encode().ljust(16, b"\0"), **metadata}
        model.metadata = [self._metadata(name, content) for name, content in named.items()]
        model.buffers = [_buffer(content) for content in self._buffers]
        return model

    def _boundary(self, tensor: Tensor, kind: str) -> int:
        """A tensor of another type beside an int8 one, which gives it its name."""
        grid = _quantization([tensor.scale], tensor.zero_point + 128) if kind == "uint8" else None
        name, inside = self._names[tensor], self._tensors[self._indices[tensor]]
        inside.name = new_name(f"{name}/int8", self._known_names)
        return self._add_tensor(name, (1, *tensor.shape), TYPES[kind], quantization=grid)

    def _add_tensor(self, name, shape, kind, content: bytes = b"", quantization=None) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, list(shape), kind
        tensor.buffer, tensor.quantization = self._buffer(content), quantization
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def _add_operator(self, code: tuple[str, int, str], inputs: list[int], output: int, options) -> None:
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault(code, len(self._codes))
        operator.inputs, operator.outputs = inputs, [output]
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self._operators.append(operator)

    def _metadata(self, name: str, content: bytes) -> schema.MetadataT:
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, self._buffer(content)
        return entry

    def _buffer(self, content: bytes) -> int:
        return self._buffers.setdefault(content, len(self._buffers))


def packed(model: schema.ModelT) -> bytes:
    """The bytes of a model, every buffer aligned to 16 bytes."""
    aligned = copy.copy(model)
    aligned.buffers = [_buffer(b"" if buffer.data is None else bytes(buffer.data)) for buffer in model.buffers]
    builder = flatbuffers.Builder(1024 + sum(len(buffer.data) for buffer in aligned.buffers if buffer.data is not None))
    builder.Finish(aligned.Pack(builder), FILE_IDENTIFIER)
    return bytes(builder.Output())


class _AlignedBuffer(schema.BufferT):
    """A buffer whose data are aligned; the schema asks for it, its Python form does not do it."""

    def Pack(self, builder):  # noqa: N802
        builder.StartVector(1, len(self.data), ALIGNMENT)
        builder.head -= len(self.data)
        builder.Bytes[builder.head : builder.head + len(self.data)] = self.data
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


def _buffer(content: bytes) -> schema.BufferT:
    buffer = _AlignedBuffer() if content else schema.BufferT()
    buffer.data = content or None
    return buffer


def _file_names(plan: Plan, known: set[str]) -> dict[Tensor, str]:
    """A new name for each activation; inputs and outputs have the model's, all others step back."""
    ends = zip((*plan.inputs, *plan.outputs), (*plan.input_names, *plan.output_names), strict=True)
    names: dict[Tensor, str] = {}
    for tensor, name in (*ends, *((tensor, tensor.name) for tensor in plan.tensors)):
        if tensor not in names:
            names[tensor] = new_name(name, known)
    return names


def _quantization(scale, zero_point: int, axis: int = 0) -> schema.QuantizationParametersT:
    grid = schema.QuantizationParametersT()
    grid.scale = np.asarray(scale, np.float32)  # arrays are packed in one piece
    grid.zeroPoint = np.full(len(grid.scale), zero_point, np.int64)
    grid.quantizedDimension = axis
    return grid


def _constant_type(constant: Constant) -> int:
    if constant.values.dtype == np.int32:
        return schema.TensorType.INT32
    name = f"INT{constant.bits}"
    if not hasattr(schema.TensorType, name):
        raise ExportError(
            "The installed TensorFlow is too old for this file",
            [(constant.name, f'TensorFlow\'s schema has no {name}: install a newer one, or weight_storage="int8"')],
        )
    return getattr(schema.TensorType, name)


def _packed_bytes(constant: Constant) -> bytes:
    """The values, several to a byte below 8 bits, the first in the lowest bits."""
    values = np.ascontiguousarray(constant.values)
    if constant.bits == 8:
        return values.tobytes()
    count = 8 // constant.bits
    flat = np.zeros(-(-values.size // count) * count, np.uint8)
    flat[: values.size] = values.ravel().view(np.uint8) & (2**constant.bits - 1)
    shifts = constant.bits * np.arange(count, dtype=np.uint8)
    return np.bitwise_or.reduce(flat.reshape(-1, count) << shifts, axis=1).tobytes()


def _operator_code(name: str, version: int) -> schema.OperatorCodeT:
    code = schema.OperatorCodeT()
    code.builtinCode, code.version = getattr(schema.BuiltinOperator, name), version
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)  # what runtimes before 2.4 read
    return code


def _signature(plan: Plan, inputs: list[int], outputs: list[int]) -> schema.SignatureDefT:
    signature = schema.SignatureDefT()
    signature.signatureKey = SIGNATURE
    signature.inputs = [_entry(name, index) for name, index in zip(plan.input_names, inputs, strict=True)]
    signature.outputs = [_entry(name, index) for name, index in zip(plan.output_names, outputs, strict=True)]
    return signature


def _entry(name: str, index: int) -> schema.TensorMapT:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry


def _as_numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]
