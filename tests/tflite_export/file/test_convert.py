"""Tests of the file, read by the flatbuffer's schema and nothing of the exporter's."""

import numpy as np
import pytest
import tf_keras
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils
from tf_keras import layers

from tflite_export.file.convert import convert
from tflite_export.lowering.lower import make_plan
from tflite_export.plan import Convolution, DepthwiseConvolution, FullyConnected, LinearOperator
from tflite_export.verification.interpreter import open_interpreter, run

TYPES = ["uint8", "int8", "float32"]
# The newest versions of TensorFlow 2.6, the last that the Edge TPU's compiler was made with.
VERSIONS_OF_TF26 = {
    "ADD": 4,
    "CONV_2D": 5,
    "DEPTHWISE_CONV_2D": 6,
    "DEQUANTIZE": 4,
    "FULLY_CONNECTED": 9,
    "MAX_POOL_2D": 3,
    "MEAN": 3,
    "MUL": 5,
    "PAD": 4,
    "QUANTIZE": 2,
    "RESHAPE": 1,
    "SOFTMAX": 3,
}
BUILTINS = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
LAYOUT = {Convolution: (1, 2, 3, 0), FullyConnected: (1, 0), DepthwiseConvolution: (0, 1, 2, 3)}


def read(content: bytes):
    return flatbuffer_utils.read_model_from_bytearray(bytearray(content))


def builtins(model) -> list[str]:
    codes = [BUILTINS[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes]
    return [codes[operator.opcodeIndex] for operator in model.subgraphs[0].operators]


def constant(model, index: int, dtype) -> np.ndarray:
    tensor = model.subgraphs[0].tensors[index]
    return np.frombuffer(bytes(bytearray(model.buffers[tensor.buffer].data)), dtype).reshape(tensor.shape)


@pytest.fixture(scope="module", params=TYPES)
def input_type(request):
    return request.param


@pytest.fixture(scope="module", params=TYPES)
def output_type(request):
    return request.param


@pytest.fixture(scope="module")
def model(plan, input_type, output_type):
    return read(convert(plan, input_type, output_type))


def test_all_tensors_are_integers(model, input_type, output_type):
    graph = model.subgraphs[0]
    ends = {*graph.inputs, *graph.outputs}
    types = {tensor.type for index, tensor in enumerate(graph.tensors) if index not in ends}
    assert types <= {schema.TensorType.INT8, schema.TensorType.INT32}
    (first,), (last,) = graph.inputs, graph.outputs
    assert graph.tensors[first].type == getattr(schema.TensorType, input_type.upper())
    assert graph.tensors[last].type == getattr(schema.TensorType, output_type.upper())


def test_conversions_stand_only_at_the_ends(model, input_type, output_type):
    names = builtins(model)
    end = {"int8": [], "uint8": ["QUANTIZE"], "float32": ["DEQUANTIZE"]}[output_type]
    start = [] if input_type == "int8" else ["QUANTIZE"]
    assert names[: len(start)] == start
    assert names[len(names) - len(end) :] == end
    assert not {"QUANTIZE", "DEQUANTIZE"}.intersection(names[len(start) : len(names) - len(end)])


def test_the_batch_is_one(model):
    graph = model.subgraphs[0]
    assert all(graph.tensors[index].shape[0] == 1 for op in graph.operators for index in op.outputs)


def test_operators_are_no_newer_than_tf26(model):
    for code in model.operatorCodes:
        name = BUILTINS[max(code.builtinCode, code.deprecatedBuiltinCode)]
        assert code.version <= VERSIONS_OF_TF26[name]


def test_the_file_holds_the_plan(plan, model):
    """Weighted operators come in the plan's order; each integer and each scale is the plan's."""
    names = [op.builtin for op in plan.operators if isinstance(op, LinearOperator)]
    stored = zip(builtins(model), model.subgraphs[0].operators, strict=True)
    stored = [operator for name, operator in stored if name in set(names)]
    tensors = model.subgraphs[0].tensors
    for planned, operator in zip((op for op in plan.operators if isinstance(op, LinearOperator)), stored, strict=True):
        x, kernel, bias = operator.inputs
        weights = constant(model, kernel, np.int8).transpose(LAYOUT[type(planned)]).reshape(planned.weights.shape)
        np.testing.assert_array_equal(weights, planned.weights)
        np.testing.assert_array_equal(constant(model, bias, np.int32), planned.bias)
        scales = np.broadcast_to(np.float32(tensors[kernel].quantization.scale), planned.weight_scale.shape)
        np.testing.assert_array_equal(scales, planned.weight_scale)
        for planned_tensor, index in ((planned.inputs[0], x), (planned.output, operator.outputs[0])):
            assert np.float32(tensors[index].quantization.scale) == [planned_tensor.scale]
            assert tensors[index].quantization.zeroPoint == [planned_tensor.zero_point]


def test_all_types_compute_the_same(plan, input_type, output_type):
    x, y = plan.inputs[0], plan.outputs[0]
    codes = np.random.default_rng(0).integers(0, 256, (4, *x.shape)).astype(np.uint8)
    integers = codes.astype(np.int64) - 128
    images = {"uint8": codes, "int8": integers.astype(np.int8), "float32": np.float32(integers - x.zero_point)}
    images["float32"] *= x.scale
    (expected,) = run(open_interpreter(convert(plan, "int8", "int8")), images["int8"])
    (found,) = run(open_interpreter(convert(plan, input_type, output_type)), images[input_type])
    as_int8 = {
        "int8": lambda: found,
        "uint8": lambda: found.astype(int) - 128,
        "float32": lambda: np.rint(found / y.scale) + y.zero_point,
    }[output_type]()
    np.testing.assert_array_equal(as_int8, expected)


def test_inputs_and_outputs_stand_in_the_models_order(trained, random_images):
    """The converter shuffles them; whoever feeds the file by position must get what the model says."""
    inputs = [layers.Input((size, size, 3), name=f"in_{size}") for size in (4, 8, 6)]
    pooled = [layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1, activation="relu")(x)) for x in inputs]
    outputs = [layers.Dense(units)(x) for units, x in zip((5, 2, 7), reversed(pooled), strict=True)]
    plan = make_plan(trained(tf_keras.Model(inputs, outputs)))
    interpreter = open_interpreter(convert(plan))
    assert [tuple(x["shape"]) for x in interpreter.get_input_details()] == [(1, 4, 4, 3), (1, 8, 8, 3), (1, 6, 6, 3)]
    assert [tuple(y["shape"]) for y in interpreter.get_output_details()] == [(1, 5), (1, 2), (1, 7)]


@pytest.mark.parametrize("head", [layers.Dense(3, use_bias=False), layers.Dense(3), layers.Conv2D(3, 1)])
def test_biases_that_are_all_zero(trained, head):
    """The converter leaves such a bias out of a FULLY_CONNECTED."""
    shape = (4, 4, 2) if isinstance(head, layers.Conv2D) else (5,)
    model = trained(tf_keras.Sequential([layers.Input(shape), head]), rate=0.0)
    convert(make_plan(model))
