"""Tests of the arithmetic of elements: ADD, SUB, MUL."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.tflite_export.operators import rounding
from tests.tflite_export.operators.agreement import Sample, assert_exact, assert_sample_exact
from tests.tflite_export.operators.drawing import images, outputs, scales, seeds, sizes, tensor, tensors, zero_points
from tflite_export.operators import Add, AddConstant, Multiply, MultiplyConstant, Subtract

# The definitions.


def added(kernels: str, left, right, read: list, written: np.float32, subtracts: bool = False) -> np.ndarray:
    """Output steps of a sum of centred integers."""
    sign = -1 if subtracts else 1
    if kernels == "xnnpack":  # multipliers of 21 bits, one shift that rounds half up
        ratios = [float(scale / written) for scale in read]
        shift = 20 - math.floor(math.log2(max(ratios)))
        one, other = (round(ratio * 2**shift) for ratio in ratios)
        return (2 ** (shift - 1) + left * one + sign * right * other) >> shift
    # TFLite Micro's SUB divides scales in float32, all others in float64.
    dtype = np.float32 if subtracts and kernels == "tflm" else np.float64
    twice = dtype(np.float32(2) * max(read))
    one, other = (
        rounding.twice(value << 20, np.float64(dtype(scale) / twice))
        for value, scale in zip((left, right), read, strict=True)
    )
    return rounding.twice(one + sign * other, np.float64(twice / dtype(np.float32(2**20) * written)))


def add(operator: Add | Subtract, kernels: str, left, right):
    one, other = operator.inputs
    read, subtracts = [one.scale, other.scale], isinstance(operator, Subtract)
    left, right = left - one.zero_point, right - other.zero_point
    levels = added(kernels, left, right, read, operator.output.scale, subtracts)
    return rounding.clamped(levels, operator.output, operator.activation)


def add_constant(operator: AddConstant, kernels: str, x):
    (source,) = operator.inputs
    constant = np.array(operator.integer - operator.constant_zero_point)
    read = [source.scale, operator.constant_scale]
    levels = added(kernels, x - source.zero_point, constant, read, operator.output.scale)
    return rounding.clamped(levels, operator.output, operator.activation)


def multiplied(kernels: str, left, right, read: list, written: np.float32) -> np.ndarray:
    """Output steps of a product of centred integers."""
    one, other = read
    if kernels == "xnnpack":
        return rounding.once(left * right, one * other / written)
    if kernels == "reference":
        return rounding.twice(left * right, np.float64(one * other / written))
    return rounding.twice(left * right, np.float64(one) * np.float64(other) / np.float64(written))


def multiply(operator: Multiply, kernels: str, left, right):
    """XNNPACK squares a tensor by a table in float32, whose zero point takes part in the rounding."""
    (one, other), output = operator.inputs, operator.output
    if kernels == "xnnpack" and one is other:
        real = one.scale * (left - one.zero_point).astype(np.float32)
        level = np.rint(real * real * (np.float32(1) / output.scale) + np.float32(output.zero_point))
        return rounding.clamped(level.astype(np.int64) - output.zero_point, output, operator.activation)
    read = [one.scale, other.scale]
    levels = multiplied(kernels, left - one.zero_point, right - other.zero_point, read, output.scale)
    return rounding.clamped(levels, output, operator.activation)


def multiply_constant(operator: MultiplyConstant, kernels: str, x):
    (source,) = operator.inputs
    constant = np.array(operator.integer - operator.constant_zero_point)
    read = [source.scale, operator.constant_scale]
    levels = multiplied(kernels, x - source.zero_point, constant, read, operator.output.scale)
    return rounding.clamped(levels, operator.output, operator.activation)


# Operators drawn at random.

ALL_CODES = np.arange(-128, 128).astype(np.int8)[None]
shapes = st.one_of(st.tuples(sizes), images)


@st.composite
def pairs(draw):
    """Two tensors of one shape, one tensor twice, or one with a value for each channel, on either side."""
    left = draw(tensors("a", draw(shapes)))
    kind = draw(st.sampled_from(["shape", "shape", "same", "channels", "channels first"]))
    if kind == "same":
        return left, left
    if kind == "shape":
        return left, draw(tensors("b", left.shape))
    right = draw(tensors("b", (1,) * (len(left.shape) - 1) + left.shape[-1:]))
    return (left, right) if kind == "channels" else (right, left)


@st.composite
def sums(draw, kind):
    inputs = draw(pairs())
    output, activation = draw(outputs(np.broadcast_shapes(*(x.shape for x in inputs))))
    assume(all(2**-10 <= x.scale / output.scale < 2**8 for x in inputs))
    return kind(inputs, output, activation)


@st.composite
def multiplications(draw) -> Multiply:
    inputs = draw(pairs())
    output, activation = draw(outputs(np.broadcast_shapes(*(x.shape for x in inputs))))
    operator = Multiply(inputs, output, activation)
    assume(2**-16 <= operator.multiplier < 2**8)
    return operator


@st.composite
def constant_additions(draw) -> AddConstant:
    """A constant of whole input steps, onto the input's scale."""
    x = draw(tensors("x", draw(shapes)))
    constant_scale = x.scale * np.float32(draw(st.sampled_from([1, 2])))
    output, activation = tensor("y", x.shape, x.scale, draw(zero_points)), draw(st.sampled_from(["none", "relu"]))
    return AddConstant((x,), output, draw(zero_points), constant_scale, draw(zero_points), activation)


@st.composite
def constant_multiplications(draw) -> MultiplyConstant:
    x = draw(tensors("x", draw(shapes)))
    output, activation = draw(outputs(x.shape))
    constant_scale = np.float32(draw(scales))
    assume(2**-16 <= x.scale * constant_scale / output.scale < 2**8)
    return MultiplyConstant((x,), output, draw(zero_points), constant_scale, draw(zero_points), activation)


SAMPLES = {
    Add: Sample(sums(Add), add),
    Subtract: Sample(sums(Subtract), add),
    AddConstant: Sample(constant_additions(), add_constant),
    Multiply: Sample(multiplications(), multiply),
    MultiplyConstant: Sample(constant_multiplications(), multiply_constant),
}


@pytest.mark.thinned(2)
@pytest.mark.parametrize("kind", SAMPLES)
@given(data=st.data(), seed=seeds)
def test_drawn_operators(kind, data, seed):
    assert_sample_exact(SAMPLES[kind], data, seed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SAMPLES)
@settings(max_examples=1000)
@given(data=st.data(), seed=seeds)
def test_drawn_operators_at_length(kind, data, seed):
    assert_sample_exact(SAMPLES[kind], data, seed)


# Every case there is.


def all_codes(operator, kind):
    """The operator on every int8 value, in the last axis."""
    (x,) = operator.inputs
    shape = (256,)
    x = dataclasses.replace(x, shape=shape, lowest=-128, highest=127)
    operator = dataclasses.replace(operator, inputs=(x,), output=dataclasses.replace(operator.output, shape=shape))
    assert_exact(operator, SAMPLES[kind].definition, [ALL_CODES])


@pytest.mark.parametrize("kind", [AddConstant, MultiplyConstant])
@given(data=st.data())
def test_all_values_of_one_tensor(kind, data):
    all_codes(data.draw(SAMPLES[kind].operators), kind)


def all_pairs(kind, scale_a, scale_b, scale_y, zeros=(3, -7, 5), activation="none") -> None:
    """An operator on all 65,536 pairs."""
    a, b, y = (
        tensor(name, (256, 256), scale, zero)
        for name, scale, zero in zip("aby", (scale_a, scale_b, scale_y), zeros, strict=True)
    )
    left, right = np.meshgrid(ALL_CODES, ALL_CODES)
    assert_exact(kind((a, b), y, activation), SAMPLES[kind].definition, [left[None], right[None]])


@pytest.mark.parametrize(
    "scale_a, scale_b, scale_y",
    [
        (0.0235, 0.0117, 0.0251),
        (0.1, 0.003, 0.07),
        (1, 1, 1),
        (1, 1, 2),
        (0.25, 0.5, 1),
        (0.125, 1, 1),
        (0.5, 0.0625, 4),
        (1, 0.3, 0.01),
        (255.9, 1, 1),
        (2**-10, 2**-10, 1),
        (2**-10, 1, 1),
        (1 - 2**-24, 1 - 2**-24, 1),
        (1.5, 1, 1),
    ],
)
@pytest.mark.parametrize("kind", [Add, Subtract])
def test_all_pairs_of_a_sum(kind, scale_a, scale_b, scale_y):
    all_pairs(kind, scale_a, scale_b, scale_y)


@pytest.mark.parametrize(
    "scale_a, scale_b, scale_y",
    [(0.0235, 0.0117, 0.0251), (1, 1 / 256, 1), (0.5, 0.5, 1), (0.25, 0.5, 1), (1, 1, 1), (1, 1, 2**15), (16, 15.9, 1)],
)
def test_all_pairs_of_a_product(scale_a, scale_b, scale_y):
    all_pairs(Multiply, scale_a, scale_b, scale_y)


@pytest.mark.parametrize("zeros", [(-128, -128, -128), (127, 127, 127), (-128, 127, 0)])
@pytest.mark.parametrize("kind, activation", [(Add, "relu"), (Subtract, "none"), (Multiply, "relu")])
def test_all_pairs_at_the_ends_of_zero_points(kind, activation, zeros):
    all_pairs(kind, 0.31, 0.47, 0.62, zeros, activation)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Add, Subtract, Multiply])
@settings(max_examples=100)
@given(data=st.data())
def test_all_pairs_of_drawn_grids(kind, data):
    operator = data.draw(SAMPLES[kind].operators)
    grids = (*operator.inputs, operator.output)
    if operator.activation != "relu_n1_to_1":
        all_pairs(kind, *(x.scale for x in grids), tuple(x.zero_point for x in grids), operator.activation)


@pytest.mark.parametrize("zero", [0, 1, -5])
@pytest.mark.parametrize("kind", [Add, Subtract, Multiply])
def test_a_tensor_with_itself(kind, zero):
    """Half of the squares of odd numbers are ties."""
    x, y = tensor("x", (256,), 0.5, -128), tensor("y", (256,), 0.5, zero)
    assert_exact(kind((x, x), y, "none"), SAMPLES[kind].definition, [ALL_CODES])


# What families differ in.

TIES = [0.5, 1.5, 2.5, -0.5, -1.5, -2.5]
TO_EVEN, AWAY, UP = [0, 2, 2, 0, -2, -2], [1, 2, 3, -1, -2, -3], [1, 2, 3, 0, -1, -2]


def found(results: dict[str, np.ndarray]) -> dict[str, list[int]]:
    return {kernels: result.ravel().tolist() for kernels, result in results.items()}


def test_ties_of_an_add():
    """XNNPACK rounds up, gemmlowp's arithmetic away from zero."""
    a, b, y = tensor("a", (6,), 1, 0), tensor("b", (6,), 1, 0), tensor("y", (6,), 2, 0)
    values = [np.int8([[2 * tie for tie in TIES]]), np.zeros((1, 6), np.int8)]
    assert found(assert_exact(Add((a, b), y, "none"), add, values)) == {"xnnpack": UP, "reference": AWAY, "tflm": AWAY}


@pytest.mark.parametrize("divisor", [2, 4])
def test_ties_of_a_product(divisor):
    """XNNPACK rounds to even, gemmlowp's arithmetic up or, with a shift to the right, away from zero."""
    x, y = tensor("x", (6,), 1, 0), tensor("y", (6,), divisor, 0)
    values = [np.int8([[divisor * tie for tie in TIES]])]
    results = assert_exact(MultiplyConstant((x,), y, 1, np.float32(1), 0, "none"), multiply_constant, values)
    twice = UP if divisor == 2 else AWAY
    assert found(results) == {"xnnpack": TO_EVEN, "reference": twice, "tflm": twice}


def test_the_micro_kernel_multiplies_scales_in_float64():
    """A product of scales that float32 rounds up to 1/8, whose mantissa then has one bit less: 3/8 becomes 1."""
    one, other = np.float32(1 + 2.0**-13), np.float32(0.125 * (1 - 2.0**-13))
    assert one * other == 0.125 > np.float64(one) * np.float64(other)
    x, y = tensor("x", (1,), one, 0), tensor("y", (1,), 1, 0)
    results = assert_exact(MultiplyConstant((x,), y, 1, other, 0, "none"), multiply_constant, [np.int8([[3]])])
    assert found(results) == {"xnnpack": [0], "reference": [1], "tflm": [0]}


@pytest.mark.parametrize("ratio", [2.0**-16, 0.5, 1, 256 * (1 - 2.0**-24)])
def test_the_ends_of_what_xnnpack_takes_as_multiplier(ratio):
    x, y = tensor("x", (256,), 1, -128), tensor("y", (256,), 1, -128)
    for constant in (1, 127):
        operator = MultiplyConstant((x,), y, constant, np.float32(ratio), 0, "none")
        assert_exact(operator, multiply_constant, [ALL_CODES])


def test_versions_of_a_product():
    """TFLite's converter writes 3 from a ratio of scales of 1 on, which TensorFlow 1.15 was the first to know."""
    x, y = tensor("x", (1,), 1, 0), tensor("y", (1,), 1, 0)
    scales = (1 - 2.0**-24, 1, 2)
    below, one, above = (MultiplyConstant((x,), y, 1, np.float32(scale), 0, "none") for scale in scales)
    assert (below.version, below.runtime, one.version, one.runtime) == (2, "1.14.0", 3, "1.15.0")
    assert (above.version, above.runtime) == (3, "1.15.0")
