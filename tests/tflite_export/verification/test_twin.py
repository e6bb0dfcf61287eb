"""Tests of the twin as a model: how a plan's operators are joined. What one operator computes, its own tests say."""

import numpy as np
import pytest

from tflite_export.file.writer import write_file
from tflite_export.operators import Add, FullyConnected, Maximum, Reshape
from tflite_export.plan import Plan, Tensor
from tflite_export.verification.interpreter import open_interpreter, run
from tflite_export.verification.twin import build_twin, twin_tensors


def tensor(name: str, shape: tuple[int, ...], zero_point: int = 0) -> Tensor:
    return Tensor(name, shape, np.float32(1), zero_point, 1.0)


@pytest.fixture
def plan() -> Plan:
    """Two inputs, read several times; an inner tensor that is an output, too; two names that Keras could not tell."""
    a, b, total = tensor("a", (4,)), tensor("b", (4,), -128), tensor("block/out", (4,))
    clipped, image = tensor("block_out", (4,)), tensor("image", (2, 2))
    operators = (
        Add((a, b), total, "none"),
        Maximum((total,), clipped, 3),
        Reshape((clipped,), image),
    )
    return Plan((a, b), operators, (total, image), ("first", "second"), ("sum", "picture"))


@pytest.fixture
def codes() -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (2, 5, 4)).astype(np.uint8))


@pytest.mark.parametrize("kernels", ["xnnpack", "reference", "tflm"])
def test_the_twin_computes_the_outputs_from_unsigned_codes(plan, codes, kernels):
    total, image = build_twin(plan, kernels).predict(codes, verbose=0)
    a, b = (one.astype(int) - 128 for one in codes)
    expected = np.clip(a + b + 128, -128, 127)
    np.testing.assert_array_equal(total, expected)
    np.testing.assert_array_equal(image, np.maximum(expected, 3).reshape(5, 2, 2))


@pytest.mark.parametrize("input_type", ["uint8", "int8"])
def test_the_file_takes_the_same_codes(plan, codes, input_type):
    given = codes if input_type == "uint8" else [(one.astype(int) - 128).astype(np.int8) for one in codes]
    found = run(open_interpreter(write_file(plan, input_type, "int8")), *given)
    for file, twin in zip(found, build_twin(plan)(codes), strict=True):
        np.testing.assert_array_equal(file, twin)


def test_every_tensor_of_the_plan(plan, codes):
    found = twin_tensors(plan)(codes)
    assert set(found) == {*plan.inputs, *plan.tensors}
    total, clipped, image = plan.tensors
    np.testing.assert_array_equal(found[clipped], np.maximum(found[total], 3))
    np.testing.assert_array_equal(found[plan.inputs[0]], codes[0].astype(int) - 128)
    assert found[image].dtype == np.int32


def test_layers_have_the_names_of_tensors(plan):
    names = {layer.name for layer in build_twin(plan).layers}
    assert {"block_out", "block_out_", "image"} <= names


def test_families_are_told_apart():
    x, y = tensor("x", (1,)), Tensor("y", (1,), np.float32(4), 0, 4.0)
    zeros = np.zeros((1, 1), np.int8)
    operator = FullyConnected((x,), y, zeros, np.float32([1]), np.int32([2]), "none")
    plan = Plan((x,), (operator,), (y,), ("x",), ("y",))
    results = [build_twin(plan, kernels)(np.zeros((1, 1), np.uint8)) for kernels in ("xnnpack", "reference", "tflm")]
    assert [result.numpy().item() for result in results] == [0, 1, 1]


def test_nothing_in_it_trains(plan):
    assert not build_twin(plan).trainable_variables
