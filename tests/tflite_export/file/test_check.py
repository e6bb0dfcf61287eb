"""Tests of the check: whatever is changed in the file, it says where."""

import dataclasses

import numpy as np
import pytest
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from tflite_export.errors import ExportError
from tflite_export.file.check import check_file
from tflite_export.file.match import _computes, match_operators
from tflite_export.plan import Add, DepthwiseConvolution, LinearOperator, MaxPool, Softmax

OPERATORS = ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"]


def last(plan, builtin: str):
    return [operator for operator in plan.operators if operator.builtin == builtin][-1]


class Tampering:
    """A file taken apart, to be changed and put together again."""

    def __init__(self, plan, content: bytes):
        self.model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
        self.graph = self.model.subgraphs[0]
        self.found = dict(match_operators(plan, self.model).operators)

    def kernel(self, operator):
        return self.graph.tensors[self.found[operator].inputs[1]]

    def bias(self, operator):
        return self.graph.tensors[self.found[operator].inputs[2]]

    def output(self, operator):
        return self.graph.tensors[self.found[operator].outputs[0]]

    def content(self) -> bytes:
        return bytes(flatbuffer_utils.convert_object_to_bytearray(self.model))

    def add_one(self, tensor, dtype) -> None:
        """Adds 1 to the last number of a constant."""
        numbers = np.frombuffer(bytes(bytearray(self.model.buffers[tensor.buffer].data)), dtype).copy()
        numbers[-1] += 1 if numbers[-1] < 100 else -1
        self.model.buffers[tensor.buffer].data = list(numbers.tobytes())


@pytest.fixture
def tampering(plan, content):
    return Tampering(plan, content)


def assert_found(plan, content: bytes, name: str, message: str) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        check_file(plan, content, "uint8", "int8")
    assert name in [found for found, _ in caught.value.problems]
    assert name in str(caught.value)


def test_the_file_passes_as_it_is(plan, content, tampering):
    check_file(plan, content, "uint8", "int8")
    check_file(plan, tampering.content(), "uint8", "int8")


@pytest.mark.parametrize("builtin", OPERATORS)
def test_a_weight(plan, tampering, builtin):
    operator = last(plan, builtin)
    tampering.add_one(tampering.kernel(operator), np.int8)
    assert_found(plan, tampering.content(), operator.output.name, f"no such {builtin}")


@pytest.mark.parametrize("builtin", OPERATORS)
def test_a_bias(plan, tampering, builtin):
    operator = last(plan, builtin)
    tampering.add_one(tampering.bias(operator), np.int32)
    assert_found(plan, tampering.content(), operator.output.name, "its bias differ|no such")


@pytest.mark.parametrize("part", ["integer", "zero point"])
def test_a_constant(plan, tampering, part):
    operator = last(plan, "MUL")
    constant = tampering.kernel(operator)
    if part == "integer":
        tampering.add_one(constant, np.int8)
    else:
        constant.quantization.zeroPoint = [1]
    assert_found(plan, tampering.content(), operator.output.name, "no such MUL")


def test_the_last_bit_of_a_constants_scale(plan, tampering):
    operator = last(plan, "MUL")
    quantization = tampering.kernel(operator).quantization
    quantization.scale = next_float(quantization.scale)
    assert_found(plan, tampering.content(), operator.output.name, "the scale of its constant is .*, planned")


def next_float(scales) -> list[float]:
    return [*scales[:-1], float(np.nextafter(np.float32(scales[-1]), np.float32(np.inf)))]


@pytest.mark.parametrize("builtin", OPERATORS)
@pytest.mark.parametrize("part, message", [("kernel", "its weight scales differ"), ("bias", "its bias scales differ")])
def test_the_last_bit_of_a_weights_scale(plan, tampering, builtin, part, message):
    operator = last(plan, builtin)
    quantization = getattr(tampering, part)(operator).quantization
    quantization.scale = next_float(quantization.scale)
    assert_found(plan, tampering.content(), operator.output.name, message)


@pytest.mark.parametrize("builtin", [*OPERATORS, "ADD", "MUL", "MAX_POOL_2D", "MEAN", "SOFTMAX"])
def test_the_last_bit_of_an_activations_scale(plan, tampering, builtin):
    operator = last(plan, builtin)
    quantization = tampering.output(operator).quantization
    quantization.scale = next_float(quantization.scale)
    assert_found(plan, tampering.content(), operator.output.name, "its scale is .*, planned")


@pytest.mark.parametrize("builtin", [*OPERATORS, "ADD", "MUL", "MAX_POOL_2D", "MEAN", "SOFTMAX"])
def test_an_activations_zero_point(plan, tampering, builtin):
    operator = last(plan, builtin)
    quantization = tampering.output(operator).quantization
    quantization.zeroPoint = [quantization.zeroPoint[0] + 1]
    assert_found(plan, tampering.content(), operator.output.name, "zero point|no such")


def test_a_weights_zero_point(plan, tampering):
    operator = last(plan, "CONV_2D")
    quantization = tampering.kernel(operator).quantization
    quantization.zeroPoint = [*quantization.zeroPoint[:-1], 1]
    assert_found(plan, tampering.content(), operator.output.name, "its weights have a zero point")


@pytest.mark.parametrize("end", ["scale", "zeroPoint"])
def test_the_inputs_quantization(plan, tampering, end):
    """The int8 tensor that the QUANTIZE at the input writes."""
    (first,) = [op for op in tampering.graph.operators if op.inputs[0] in tampering.graph.inputs]
    quantization = tampering.graph.tensors[first.outputs[0]].quantization
    numbers = getattr(quantization, end)
    setattr(quantization, end, next_float(numbers) if end == "scale" else [numbers[0] + 1])
    assert_found(plan, tampering.content(), plan.inputs[0].name, "planned")


@pytest.mark.parametrize("end, change", [("inputs", 0.5), ("outputs", 0.5)])
def test_the_scales_that_a_caller_sees(plan, tampering, end, change):
    """Applications read them to turn images into codes and codes into scores."""
    tensor = tampering.graph.tensors[getattr(tampering.graph, end)[0]]
    tensor.quantization.scale = [tensor.quantization.scale[0] * change]
    with pytest.raises(ExportError):
        check_file(plan, tampering.content(), "uint8", "int8")


@pytest.mark.parametrize("kind", [DepthwiseConvolution, Add, MaxPool, Softmax])
def test_a_dropped_operator(plan, tampering, kind):
    operator = next(op for op in plan.operators if isinstance(op, kind))
    found = tampering.found[operator]
    tampering.graph.operators.remove(found)
    for other in tampering.graph.operators:
        replaced = [found.inputs[0] if index == found.outputs[0] else index for index in other.inputs]
        other.inputs = np.array(replaced, np.int32)
    assert_found(plan, tampering.content(), operator.output.name, f"no such {operator.builtin}")


def test_a_dropped_activation(plan, tampering):
    operator = next(op for op in plan.operators if isinstance(op, LinearOperator) and op.activation == "relu")
    tampering.found[operator].builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.NONE
    assert_found(plan, tampering.content(), operator.output.name, "no such")


@pytest.mark.parametrize("option", ["strideH", "strideW", "padding", "dilationHFactor", "dilationWFactor"])
def test_a_window(plan, tampering, option):
    operator = last(plan, "CONV_2D")
    options = tampering.found[operator].builtinOptions
    setattr(options, option, 1 - options.padding if option == "padding" else getattr(options, option) + 1)
    assert_found(plan, tampering.content(), operator.output.name, "no such CONV_2D")


def test_a_newer_operator(plan, tampering):
    operator = last(plan, "CONV_2D")
    tampering.model.operatorCodes[tampering.found[operator].opcodeIndex].version = 6
    assert_found(plan, tampering.content(), operator.output.name, "CONV_2D version 6; TF 2.6 knows up to 5")


def test_swapped_inputs_of_an_operator(plan, tampering):
    """Both inputs of an ADD at the same tensor."""
    operator = last(plan, "ADD")
    found = tampering.found[operator]
    found.inputs = np.array([found.inputs[0]] * 2, np.int32)
    assert_found(plan, tampering.content(), operator.output.name, "no such ADD")


@pytest.mark.parametrize("types, message", [(("int8", "int8"), "asked for int8"), (("uint8", "uint8"), "asked for")])
def test_other_types_than_asked_for(plan, content, types, message):
    with pytest.raises(ExportError, match=message):
        check_file(plan, content, *types)


def test_operators_without_weights_are_told_apart_by_their_biases(plan, tampering):
    """Two of them may read the same input; the converter chooses their scales, so only the real biases count."""
    operator = last(plan, "CONV_2D")
    found = tampering.found[operator]
    no_weights = dataclasses.replace(operator, weights=np.zeros_like(operator.weights))
    kernel = tampering.kernel(operator)
    kernel.quantization.scale = [2 * scale for scale in kernel.quantization.scale]
    stored = np.frombuffer(no_weights.weights.transpose(3, 0, 1, 2).tobytes(), np.uint8)
    tampering.model.buffers[kernel.buffer].data = list(stored)
    for shift, same in ((0, True), (1000, False)):
        biases = np.rint(operator.bias / 2).astype(np.int32) + shift
        tampering.model.buffers[tampering.bias(operator).buffer].data = list(biases.tobytes())
        taken = [found.inputs[0]]
        assert bool(_computes(no_weights, taken, found, tampering.model, {})) is same


def test_everything_is_named_at_once(plan, tampering):
    names = []
    for builtin in OPERATORS:
        operator = last(plan, builtin)
        tampering.bias(operator).quantization.scale = next_float(tampering.bias(operator).quantization.scale)
        names.append(operator.output.name)
    with pytest.raises(ExportError) as caught:
        check_file(plan, tampering.content(), "uint8", "int8")
    assert {name for name, _ in caught.value.problems} == set(names)
