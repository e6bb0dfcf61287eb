"""Tests of the check: whatever is changed in the file, it says where."""

import numpy as np
import pytest
from tensorflow.lite.python import schema_py_generated as schema

from tflite_export.errors import ExportError
from tflite_export.file.reader import check_file, read_model
from tflite_export.file.writer import packed, write_file

LINEAR = ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"]
OPERATORS = [*LINEAR, "ADD", "MUL", "MAX_POOL_2D", "AVERAGE_POOL_2D", "SOFTMAX", "RESHAPE"]


class Tampering:
    """A file taken apart, to be changed and put together again."""

    def __init__(self, plan, content: bytes):
        self.model = read_model(content)
        self.graph = self.model.subgraphs[0]
        self.places = {operator: place for place, operator in enumerate(plan.operators, start=1)}  # a QUANTIZE is first

    def operator(self, planned):
        return self.graph.operators[self.places[planned]]

    def constant(self, planned, place=1):
        return self.graph.tensors[self.operator(planned).inputs[place]]

    def output(self, planned):
        return self.graph.tensors[self.operator(planned).outputs[0]]

    def content(self) -> bytes:
        return packed(self.model)

    def add_one(self, tensor, dtype) -> None:
        """Adds 1 to the last number of a constant."""
        numbers = np.frombuffer(bytes(self.model.buffers[tensor.buffer].data), dtype).copy()
        numbers[-1] += 1 if numbers[-1] < 100 else -1
        self.model.buffers[tensor.buffer].data = numbers.tobytes()


@pytest.fixture
def tampering(plan, content):
    return Tampering(plan, content)


def last(plan, builtin: str):
    return [operator for operator in plan.operators if operator.builtin == builtin][-1]


def assert_found(plan, content: bytes, *places: str) -> None:
    """Exactly these places are named, with what stands there and what was planned."""
    with pytest.raises(ExportError, match="The file is not what was planned") as caught:
        check_file(plan, content, "uint8", "int8")
    assert [place for place, _ in caught.value.problems] == list(places)
    assert all(" planned " in reason for _, reason in caught.value.problems)
    assert all(place in str(caught.value) for place in places)


def next_float(scales) -> list[float]:
    return [*scales[:-1], float(np.nextafter(np.float32(scales[-1]), np.float32(np.inf)))]


def test_the_file_passes_as_it_is(plan, content, tampering):
    check_file(plan, content, "uint8", "int8")
    assert tampering.content() == content


def test_names_and_the_description_may_differ(plan, tampering):
    tampering.model.description = "another"
    tampering.graph.name = "other"
    tampering.graph.tensors[3].name = "a new name"
    check_file(plan, tampering.content(), "uint8", "int8")


@pytest.mark.parametrize("end", ["inputs", "outputs"])
def test_names_that_callers_use_may_not(plan, tampering, end):
    (entry,) = getattr(tampering.model.signatureDefs[0], end)
    entry.name = "other"
    assert_found(plan, tampering.content(), f"file.signatureDefs[0].{end}[0].name")


@pytest.mark.parametrize("builtin", LINEAR)
@pytest.mark.parametrize("place, dtype", [(1, np.int8), (2, np.int32)], ids=["weight", "bias"])
def test_a_number(plan, tampering, builtin, place, dtype):
    tensor = tampering.constant(last(plan, builtin), place)
    tampering.add_one(tensor, dtype)
    assert_found(plan, tampering.content(), f"file.buffers[{tensor.buffer}].data")


@pytest.mark.parametrize("builtin", [*LINEAR, "MUL"])
@pytest.mark.parametrize("place", [1, 2])
@pytest.mark.parametrize("field", ["scale", "zeroPoint"])
def test_a_constants_grid(plan, tampering, builtin, place, field):
    """A bit of a scale is enough."""
    operator = last(plan, builtin)
    if builtin == "MUL":
        place = 1
    index = tampering.operator(operator).inputs[place]
    grid = tampering.graph.tensors[index].quantization
    numbers = list(getattr(grid, field))
    setattr(grid, field, next_float(numbers) if field == "scale" else [*numbers[:-1], numbers[-1] + 1])
    assert_found(plan, tampering.content(), f"file.subgraphs[0].tensors[{index}].quantization.{field}")


@pytest.mark.parametrize("builtin", OPERATORS)
@pytest.mark.parametrize("field", ["scale", "zeroPoint"])
def test_an_activations_grid(plan, tampering, builtin, field):
    index = tampering.operator(last(plan, builtin)).outputs[0]
    grid = tampering.graph.tensors[index].quantization
    numbers = list(getattr(grid, field))
    setattr(grid, field, next_float(numbers) if field == "scale" else [numbers[0] + 1])
    assert_found(plan, tampering.content(), f"file.subgraphs[0].tensors[{index}].quantization.{field}")


@pytest.mark.parametrize("end", ["inputs", "outputs"])
def test_the_scales_that_a_caller_sees(plan, tampering, end):
    """Applications read them to turn images into codes and codes into scores."""
    index = getattr(tampering.graph, end)[0]
    grid = tampering.graph.tensors[index].quantization
    grid.scale = [grid.scale[0] * 0.5]
    assert_found(plan, tampering.content(), f"file.subgraphs[0].tensors[{index}].quantization.scale")


@pytest.mark.parametrize("builtin", OPERATORS)
def test_a_dropped_operator(plan, tampering, builtin):
    found = tampering.operator(last(plan, builtin))
    tampering.graph.operators.remove(found)
    for other in tampering.graph.operators:
        other.inputs = [found.inputs[0] if index == found.outputs[0] else index for index in other.inputs]
    assert_found(plan, tampering.content(), "file.subgraphs[0].operators")


@pytest.mark.parametrize("option", ["strideH", "strideW", "padding", "dilationHFactor", "fusedActivationFunction"])
def test_an_option(plan, tampering, option):
    operator = last(plan, "CONV_2D")
    options = tampering.operator(operator).builtinOptions
    setattr(options, option, 1 - options.padding if option == "padding" else getattr(options, option) + 1)
    place = tampering.places[operator]
    assert_found(plan, tampering.content(), f"file.subgraphs[0].operators[{place}].builtinOptions.{option}")


def test_options_of_another_operator(plan, tampering):
    operator = last(plan, "ADD")
    found = tampering.operator(operator)
    found.builtinOptions, found.builtinOptionsType = schema.MulOptionsT(), schema.BuiltinOptions.MulOptions
    where = f"file.subgraphs[0].operators[{tampering.places[operator]}]"
    assert_found(plan, tampering.content(), f"{where}.builtinOptionsType", f"{where}.builtinOptions")


def test_a_newer_operator(plan, tampering):
    index = tampering.operator(last(plan, "CONV_2D")).opcodeIndex
    tampering.model.operatorCodes[index].version = 6
    assert_found(plan, tampering.content(), f"file.operatorCodes[{index}].version")


def test_swapped_inputs_of_an_operator(plan, tampering):
    operator = last(plan, "ADD")
    found = tampering.operator(operator)
    found.inputs = list(found.inputs)[::-1]
    assert_found(plan, tampering.content(), f"file.subgraphs[0].operators[{tampering.places[operator]}].inputs")


def test_something_more(plan, tampering):
    """A tensor, a signature, a piece of metadata that nobody planned."""
    tampering.graph.tensors.append(tampering.graph.tensors[0])
    tampering.model.signatureDefs = [*tampering.model.signatureDefs, *tampering.model.signatureDefs]
    tampering.model.metadata = [*tampering.model.metadata, *tampering.model.metadata]
    assert_found(plan, tampering.content(), "file.subgraphs[0].tensors", "file.metadata", "file.signatureDefs")


@pytest.mark.parametrize("types", [("int8", "int8"), ("uint8", "uint8"), ("uint8", "float32")])
def test_other_types_than_asked_for(plan, content, types):
    with pytest.raises(ExportError, match="The file is not what was planned"):
        check_file(plan, content, *types)


def test_everything_is_named_at_once(plan, tampering):
    indices = []
    for builtin in LINEAR:
        indices.append(tampering.operator(last(plan, builtin)).inputs[2])
        grid = tampering.graph.tensors[indices[-1]].quantization
        grid.scale = next_float(grid.scale)
    places = [f"file.subgraphs[0].tensors[{index}].quantization.scale" for index in sorted(indices)]
    assert_found(plan, tampering.content(), *places)


def test_what_is_no_file(plan):
    for content in (b"", b"TFL3", b"\x1c\0\0\0TFL3", bytes(100), b"PK\x03\x04" + bytes(100)):
        with pytest.raises(ExportError, match="The file cannot be read"):
            check_file(plan, content, "uint8", "int8")


def test_bytes_behind_the_end(plan):
    with pytest.raises(ExportError, match="its bytes"):
        check_file(plan, write_file(plan) + b"\0", "uint8", "int8")
