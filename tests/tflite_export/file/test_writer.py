"""Tests of the file, read by the flatbuffer's schema and nothing of the exporter's."""

import dataclasses

import numpy as np
import pytest
import tf_keras
from tensorflow.lite.python import schema_py_generated as schema
from tf_keras import layers

from tests.tflite_export.file.reading import builtins, codes_of, constant, read
from tflite_export.file.reader import check_file
from tflite_export.file.writer import write_file
from tflite_export.lowering.lower import make_plan
from tflite_export.operators import (
    AveragePool,
    Convolution,
    DepthwiseConvolution,
    FullyConnected,
    LinearOperator,
    Window,
)
from tflite_export.verification.interpreter import open_interpreter, run

TYPES = ["uint8", "int8", "float32"]
# The newest versions of TensorFlow 2.6, the last that the Edge TPU's compiler was made with.
VERSIONS_OF_TF26 = {
    "ADD": 4,
    "AVERAGE_POOL_2D": 3,
    "CONV_2D": 5,
    "DEPTHWISE_CONV_2D": 6,
    "DEQUANTIZE": 4,
    "FULLY_CONNECTED": 9,
    "MAX_POOL_2D": 3,
    "MUL": 5,
    "PAD": 4,
    "QUANTIZE": 2,
    "RESHAPE": 1,
    "SOFTMAX": 3,
}
LAYOUT = {Convolution: (1, 2, 3, 0), FullyConnected: (1, 0), DepthwiseConvolution: (0, 1, 2, 3)}


@pytest.fixture(scope="module", params=TYPES)
def input_type(request):
    return request.param


@pytest.fixture(scope="module", params=TYPES)
def output_type(request):
    return request.param


@pytest.fixture(scope="module")
def model(plan, input_type, output_type):
    return read(write_file(plan, input_type, output_type, "a description"))


def test_all_tensors_are_integers(model, input_type, output_type):
    graph = model.subgraphs[0]
    ends = {*graph.inputs, *graph.outputs}
    types = {tensor.type for index, tensor in enumerate(graph.tensors) if index not in ends}
    assert types <= {schema.TensorType.INT8, schema.TensorType.INT32}
    (first,), (last,) = graph.inputs, graph.outputs
    assert graph.tensors[first].type == getattr(schema.TensorType, input_type.upper())
    assert graph.tensors[last].type == getattr(schema.TensorType, output_type.upper())


def test_conversions_stand_only_at_the_ends(model, input_type, output_type):
    """QUANTIZE at an input that is not int8, DEQUANTIZE at a float output, and a QUANTIZE at a uint8 one."""
    found = builtins(model)
    start = {"int8": [], "uint8": ["QUANTIZE"], "float32": ["QUANTIZE"]}[input_type]
    end = {"int8": [], "uint8": ["QUANTIZE"], "float32": ["DEQUANTIZE"]}[output_type]
    assert found[: len(start)] == start
    assert found[len(found) - len(end) :] == end
    assert not {"QUANTIZE", "DEQUANTIZE"}.intersection(found[len(start) : len(found) - len(end)])


def test_means_and_sums_are_average_pools(model):
    """MEAN agrees in no two runtimes; SUM has no int8 kernel in some."""
    assert "AVERAGE_POOL_2D" in builtins(model)
    assert not {"MEAN", "SUM"}.intersection(builtins(model))


def test_full_windows_do_not_stride(plan):
    """An Ethos-U takes strides up to 3, and a full window makes one step however wide it is."""
    pools = [operator for operator in plan.operators if isinstance(operator, AveragePool)]
    assert pools
    for pool in pools:
        assert (pool.pool == pool.inputs[0].shape[:2]) and (pool.window.strides == (1, 1))


def test_the_batch_is_one(model):
    graph = model.subgraphs[0]
    assert all(graph.tensors[index].shape[0] == 1 for op in graph.operators for index in op.outputs)


def test_operators_are_no_newer_than_tf26(model):
    for name, code in zip(codes_of(model), model.operatorCodes, strict=True):
        assert code.version <= VERSIONS_OF_TF26[name]


def test_every_operator_code_is_used_and_stands_once(model):
    assert sorted({op.opcodeIndex for op in model.subgraphs[0].operators}) == list(range(len(model.operatorCodes)))
    codes = [(code.builtinCode, code.version) for code in model.operatorCodes]
    assert len(set(codes)) == len(codes)
    # Runtimes before 2.4 know only the deprecated one.
    assert all(code.deprecatedBuiltinCode == code.builtinCode for code in model.operatorCodes)


def test_the_model_says_what_it_needs(model):
    assert model.version == 3
    assert model.description == b"a description"
    (metadata,) = model.metadata
    assert metadata.name == b"min_runtime_version"
    version = bytes(bytearray(model.buffers[metadata.buffer].data))
    assert version == b"1.14.0".ljust(16, b"\0")
    (graph,) = model.subgraphs
    assert graph.name == b"main"


def test_buffer_zero_is_empty_and_no_other_is(model):
    first, *others = model.buffers
    assert first.data is None
    assert all(len(buffer.data) for buffer in others)
    used = {tensor.buffer for tensor in model.subgraphs[0].tensors} | {entry.buffer for entry in model.metadata}
    assert used == set(range(len(model.buffers)))


def test_every_buffer_is_aligned(plan, input_type, output_type):
    """By the bytes themselves: kernels read constants in place, with instructions that need 16."""
    content = write_file(plan, input_type, output_type)
    model = schema.Model.GetRootAs(content, 0)
    places = []
    for index in range(model.BuffersLength()):
        table = model.Buffers(index)._tab
        field = table.Offset(4)
        if field:
            places.append(table.Vector(field))
    assert len(places) == model.BuffersLength() - 1 > 10
    assert all(place % 16 == 0 for place in places)
    assert content[4:8] == b"TFL3"


def test_the_file_holds_the_plan(plan, model):
    """Operators come in the plan's order; each integer and each scale is the plan's."""
    stored = zip(builtins(model), model.subgraphs[0].operators, strict=True)
    stored = [(name, operator) for name, operator in stored if name not in ("QUANTIZE", "DEQUANTIZE")]
    tensors = model.subgraphs[0].tensors
    for planned, (name, operator) in zip(plan.operators, stored, strict=True):
        assert name == planned.builtin
        for x, index in zip((*planned.inputs, planned.output), (*operator.inputs, *operator.outputs), strict=False):
            if len(planned.inputs) == len(operator.inputs) or x is not planned.output:
                assert np.float32(tensors[index].quantization.scale) == [x.scale]
                assert tensors[index].quantization.zeroPoint == [x.zero_point]
                assert tuple(tensors[index].shape) == (1, *x.shape)
        if isinstance(planned, LinearOperator):
            _, kernel, bias = operator.inputs
            weights = constant(model, kernel, np.int8).transpose(LAYOUT[type(planned)])
            np.testing.assert_array_equal(weights.reshape(planned.weights.shape), planned.weights)
            np.testing.assert_array_equal(constant(model, bias, np.int32), planned.bias)
            scales = np.broadcast_to(np.float32(tensors[kernel].quantization.scale), planned.weight_scale.shape)
            np.testing.assert_array_equal(scales, planned.weight_scale)


def test_all_types_compute_the_same(plan, input_type, output_type):
    x, y = plan.inputs[0], plan.outputs[0]
    codes = np.random.default_rng(0).integers(0, 256, (4, *x.shape)).astype(np.uint8)
    integers = codes.astype(np.int64) - 128
    images = {"uint8": codes, "int8": integers.astype(np.int8), "float32": np.float32(integers - x.zero_point)}
    images["float32"] *= x.scale
    (expected,) = run(open_interpreter(write_file(plan, "int8", "int8")), images["int8"])
    (found,) = run(open_interpreter(write_file(plan, input_type, output_type)), images[input_type])
    as_int8 = {
        "int8": lambda: found,
        "uint8": lambda: found.astype(int) - 128,
        "float32": lambda: np.rint(found / y.scale) + y.zero_point,
    }[output_type]()
    np.testing.assert_array_equal(as_int8, expected)


# Names.


def test_equal_plans_give_equal_bytes(residual, content):
    assert write_file(make_plan(residual)) == content
    assert write_file(make_plan(residual), description="another") != content


def test_equal_branches_and_equal_heads_stay_apart(chain, trained):
    image = tf_keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, activation="relu", name="backbone")(image)
    branches = [layers.Conv2D(4, 1, activation="relu", name=name, kernel_initializer="ones")(x) for name in "ab"]
    pools = [layers.GlobalAveragePooling2D(name=f"{name}_pool")(layers.Add(name=name)(branches)) for name in "cd"]
    heads = [layers.Dense(3, kernel_initializer="ones", name=f"head_{i}")(pool) for i, pool in enumerate(pools)]
    model = tf_keras.Model(image, heads)
    plan = make_plan(trained(model))
    kinds = [operator.builtin for operator in plan.operators]
    counts = {"ADD": 2, "AVERAGE_POOL_2D": 2, "CONV_2D": 3, "FULLY_CONNECTED": 2}
    assert {kind: kinds.count(kind) for kind in counts} == counts
    assert chain(model).differing == 0


def test_an_output_twice_and_an_output_that_is_an_input(exported, trained):
    image = tf_keras.Input((4, 4, 2), name="image")
    x = layers.Conv2D(3, 1, activation="relu", name="conv")(image)
    y = layers.Conv2D(3, 1, name="last")(x)
    float_model = tf_keras.Model(image, [y, image, y, x])
    quantized = trained(float_model)
    plan = make_plan(quantized)
    assert len(set(plan.outputs)) == 4
    assert not set(plan.outputs) & set(plan.inputs)
    content = write_file(plan)
    check_file(plan, content, "uint8", "int8")
    codes = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 2)).astype(np.uint8)
    one, same, again, _ = run(open_interpreter(content), codes)
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(same.astype(int) + 128, codes)
    assert len(np.unique(one)) > 1
    assert exported(quantized).differing == 0


def test_a_single_operator(plan):
    (x,) = plan.inputs
    pooled = dataclasses.replace(x, name="pooled", shape=(1, 1, x.shape[-1]))
    operator = AveragePool((x,), pooled, x.shape[:2], Window())
    short = dataclasses.replace(plan, operators=(operator,), outputs=(pooled,), output_names=("pooled",))
    content = write_file(short)
    codes = np.full((1, *x.shape), 7, np.uint8)
    assert (run(open_interpreter(content), codes)[0] == 7 - 128).all()


@pytest.mark.parametrize("head", [layers.Dense(3, use_bias=False), layers.Dense(3), layers.Conv2D(3, 1)])
def test_biases_that_are_all_zero_are_written(exported, trained, head):
    """Without a bias, and without its quantization, XNNPACK does not take the operator."""
    shape = (4, 4, 2) if isinstance(head, layers.Conv2D) else (5,)
    quantized = trained(tf_keras.Sequential([layers.Input(shape), head]), rate=0.0)
    model = read(write_file(make_plan(quantized)))
    operator = model.subgraphs[0].operators[1]
    _, _, bias = operator.inputs
    np.testing.assert_array_equal(constant(model, bias, np.int32), np.zeros(3, np.int32))
    assert len(model.subgraphs[0].tensors[bias].quantization.scale)
    assert exported(quantized).differing == 0
