"""Files of a few operators, written with TFLite's schema."""

import dataclasses

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema


@dataclasses.dataclass
class FileOfOperators:
    """A .tflite file; tensors are called by their names."""

    tensors: dict[str, schema.TensorT] = dataclasses.field(default_factory=dict)
    operators: list[schema.OperatorT] = dataclasses.field(default_factory=list)
    codes: list[schema.OperatorCodeT] = dataclasses.field(default_factory=list)
    buffers: list[schema.BufferT] = dataclasses.field(default_factory=lambda: [schema.BufferT()])

    def add_tensor(self, name, shape, scale, zero_point=0, tensor_type=schema.TensorType.INT8):
        tensor = self.tensors[name] = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name.encode(), list(shape), tensor_type, 0
        if scale is not None:
            tensor.quantization = quantization = schema.QuantizationParametersT()
            quantization.scale = np.atleast_1d(np.float32(scale))
            quantization.zeroPoint = [zero_point] * len(quantization.scale)

    def add_constant(self, name, values, scale=None):
        tensor_type = {np.dtype(np.int8): schema.TensorType.INT8, np.dtype(np.int32): schema.TensorType.INT32}
        self.add_tensor(name, values.shape, scale, tensor_type=tensor_type[values.dtype])
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self.tensors[name].buffer = len(self.buffers)
        self.buffers.append(buffer)

    def add_operator(self, builtin, inputs, output, version=1, **options):
        """`builtin` as the schema calls it, CONV_2D; `options` are fields of its options."""
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, builtin)
        code.version = version
        kind = {"CONV_2D": "Conv2DOptions", "MAX_POOL_2D": "Pool2DOptions"}.get(builtin, f"{builtin.title()}Options")
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        operator.builtinOptions = getattr(schema, f"{kind}T")()
        for field, value in options.items():
            setattr(operator.builtinOptions, field, value)
        names = list(self.tensors)
        operator.inputs, operator.outputs = [names.index(name) for name in inputs], [names.index(output)]
        operator.opcodeIndex = len(self.codes)
        self.codes.append(code)
        self.operators.append(operator)

    def content(self, inputs, outputs):
        names, graph, model = list(self.tensors), schema.SubGraphT(), schema.ModelT()
        graph.tensors, graph.operators, graph.name = list(self.tensors.values()), self.operators, b"main"
        graph.inputs, graph.outputs = ([names.index(name) for name in group] for group in (inputs, outputs))
        model.version, model.operatorCodes, model.buffers, model.subgraphs = 3, self.codes, self.buffers, [graph]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


@pytest.fixture
def file():
    return FileOfOperators()
