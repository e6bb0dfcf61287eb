"""Tests of the weighted sums: CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.tflite_export.operators import rounding
from tests.tflite_export.operators.agreement import Sample, assert_exact, assert_sample_exact, random_values
from tests.tflite_export.operators.drawing import (
    images,
    outputs,
    patches,
    seeds,
    sizes,
    tensor,
    tensors,
    windowed_shape,
    windows,
)
from tflite_export.operators import Convolution, DepthwiseConvolution, FullyConnected, LinearOperator, Window
from tflite_export.operators.arithmetic import EXACT_IN_FLOAT32

# The definitions.


def requantized(operator: LinearOperator, kernels: str, products: np.ndarray) -> np.ndarray:
    """A sum of products with its bias, as each family of kernels brings it to the output's grid."""
    total = rounding.in_int32(products + operator.bias)
    scales = operator.inputs[0].scale, operator.weight_scale, operator.output.scale
    read, weight, written = (np.asarray(scale, np.float64) for scale in scales)
    if kernels == "xnnpack":
        levels = rounding.once(total, scales[0] * scales[1] / scales[2])
    elif kernels == "reference" and isinstance(operator, FullyConnected):
        levels = rounding.away_from_zero(total * (read * weight / written))
    elif isinstance(operator, FullyConnected) and operator.bits == 8:
        levels = rounding.twice(total, (scales[0] * scales[1]).astype(np.float64) / written)
    else:
        levels = rounding.twice(total, read * weight / written)
    return rounding.clamped(levels, operator.output, operator.activation)


def convolution(operator: Convolution, kernels: str, x):
    seen = patches(x - operator.inputs[0].zero_point, operator.weights.shape[:2], operator.window, 0)
    return requantized(operator, kernels, np.einsum("nhwcij,ijco->nhwo", seen, operator.weights.astype(np.int64)))


def depthwise(operator: DepthwiseConvolution, kernels: str, x):
    seen = patches(x - operator.inputs[0].zero_point, operator.weights.shape[:2], operator.window, 0)
    return requantized(operator, kernels, np.einsum("nhwcij,ijc->nhwc", seen, operator.weights.astype(np.int64)))


def fully_connected(operator: FullyConnected, kernels: str, x):
    return requantized(operator, kernels, (x - operator.inputs[0].zero_point) @ operator.weights.astype(np.int64))


DEFINITIONS = {Convolution: convolution, DepthwiseConvolution: depthwise, FullyConnected: fully_connected}


# Operators drawn at random.


@st.composite
def linear(draw, kind: type[LinearOperator], x, weights: np.ndarray, shape, one_scale: bool = False, **fields):
    """A weighted sum whose multiplier leaves the result within int8 about as often as not, or is extreme."""
    channels, rng = weights.shape[-1], np.random.default_rng(draw(seeds))
    output, activation = draw(outputs(shape))
    flat = weights.reshape(-1, channels)
    bias = rng.integers(-1, 1, channels, endpoint=True) * 2 ** draw(st.integers(0, 30))
    bias += rng.integers(-999, 999, channels)
    multiplier = 2.0 ** draw(st.integers(4, 8)) / (np.sqrt((flat.astype(float) ** 2).sum(0)) * 100 + np.abs(bias) + 1)
    if draw(st.booleans()):
        extreme = draw(st.sampled_from([2.0**-32 * (1 + 1e-6), 2.0**-31, 0.5, 1 - 2.0**-24, 1, 1 + 2.0**-23, 255.9]))
        multiplier[rng.random(channels) < 0.5] = extreme
    scale = (multiplier * output.scale / x.scale).astype(np.float32)
    if one_scale:
        scale = np.full_like(scale, scale.min())
    if draw(st.booleans()):
        scale = np.exp2(np.rint(np.log2(scale)))
    operator = kind((x,), output, weights, scale, np.zeros(channels, np.int32), activation, **fields)
    assume(operator.multiplier.min() >= 2.0**-32 and operator.multiplier.max() < 2**8)  # what XNNPACK takes
    room = operator.largest_sum - operator.bounds()
    return dataclasses.replace(operator, bias=np.clip(bias, -room, room).astype(np.int32))


@st.composite
def weights(draw, *shape: int, ends=None) -> np.ndarray:
    """Integers of some width, some channels all zero."""
    largest = draw(st.sampled_from([1, 3, 15, 127]))
    rng = np.random.default_rng(draw(seeds))
    values = rng.integers(*(ends or (-largest, largest)), shape, np.int8, endpoint=True)
    values[..., rng.random(shape[-1]) < 0.2] = 0
    return values


@st.composite
def convolutions(draw) -> Convolution:
    x, channels = draw(tensors("x", draw(images))), draw(sizes)
    size = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    window = draw(windows(x, size))
    kernel = draw(weights(*size, x.shape[-1], channels))
    return draw(linear(Convolution, x, kernel, windowed_shape(x, size, window, channels), window=window))


@st.composite
def depthwise_convolutions(draw) -> DepthwiseConvolution:
    x = draw(tensors("x", draw(st.tuples(sizes, sizes, st.integers(1, 9)))))
    size = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    window, channels = draw(windows(x, size)), x.shape[-1]
    shape = windowed_shape(x, size, window, channels)
    return draw(linear(DepthwiseConvolution, x, draw(weights(*size, channels)), shape, window=window))


@st.composite
def fully_connecteds(draw) -> FullyConnected:
    """On vectors or, with `keep_num_dims`, on every pixel; packed weights in rows of whole bytes."""
    width, units = draw(st.sampled_from([8, 4, 2])), draw(st.integers(1, 12))
    features = draw(st.integers(1, 10)) * {8: 1, 4: 2, 2: 4}[width]
    leading = draw(st.sampled_from([(), (3,), (2, 3)]))
    x = draw(tensors("x", (*leading, features)))
    ends = None if width == 8 else (-(2 ** (width - 1)), 2 ** (width - 1) - 1)
    kernel = draw(weights(features, units, ends=ends))
    return draw(linear(FullyConnected, x, kernel, (*leading, units), one_scale=width == 8, bits=width))


SAMPLES = {
    Convolution: Sample(convolutions(), convolution),
    DepthwiseConvolution: Sample(depthwise_convolutions(), depthwise),
    FullyConnected: Sample(fully_connecteds(), fully_connected),
}


@pytest.mark.parametrize("kind", SAMPLES)
@settings(max_examples=40)
@given(data=st.data(), seed=seeds)
def test_drawn_sums(kind, data, seed):
    assert_sample_exact(SAMPLES[kind], data, seed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SAMPLES)
@settings(max_examples=1000)
@given(data=st.data(), seed=seeds)
def test_drawn_sums_at_length(kind, data, seed):
    assert_sample_exact(SAMPLES[kind], data, seed)


# What a runtime must not do.


def wide_sum(kind: type[LinearOperator], bias: int) -> LinearOperator:
    """A sum of 2304 products of one sign, far beyond 2^24 and of any parity, so that float32 would lose its end."""
    shapes = {Convolution: ((3, 3, 256), (3, 3, 256, 4), (1, 1, 4)), FullyConnected: ((2304,), (2304, 4), (4,))}
    shape, kernel, result = shapes[kind]
    values = np.random.default_rng(0).integers(100, 127, kernel, np.int8, endpoint=True) * np.int8([1, -1, 1, -1])
    # The sums differ by some 10^5 from image to image: 2^11 to a level, in a window around their mean.
    x, output = tensor("x", shape, 1, -128), tensor("y", result, 2.0**11, 0)
    mean = 127 * 113 * 2304
    biases = np.int32([-mean, mean, -mean, mean]) + np.int32([bias])
    return kind((x,), output, values, np.ones(4, np.float32), biases, "none")


@pytest.mark.parametrize("bias", [0, 1, 12345])
@pytest.mark.parametrize("kind", [Convolution, FullyConnected])
def test_sums_beyond_float32(kind, bias):
    operator = wide_sum(kind, bias)
    assert operator.bounds().max() > EXACT_IN_FLOAT32
    values = np.random.default_rng(1).integers(-128, 128, (20, *operator.inputs[0].shape)).astype(np.int8)
    results = assert_exact(operator, DEFINITIONS[kind], [values])
    assert len(np.unique(results["xnnpack"])) > 30


def test_a_sum_that_float32_cannot_add_up():
    """One unit at the end of a sum beyond 2^24 decides between two levels."""
    x, output = tensor("x", (1025,), 1, -128), tensor("y", (1,), 2, 0)
    values = np.full((1025, 1), 127, np.int8)
    values[-1] = 1
    bias = np.int32([-127 * 131 * 1024])
    operator = FullyConnected((x,), output, values, np.float32([1]), bias, "none")
    assert 127 * 131 * 1024 > EXACT_IN_FLOAT32
    read = np.full((8, 1025), 131 - 128, np.int8)
    read[:, -1] = np.arange(8) - 128
    results = assert_exact(operator, fully_connected, [read])
    np.testing.assert_array_equal(results["xnnpack"].ravel(), [0, 0, 1, 2, 2, 2, 3, 4])
    np.testing.assert_array_equal(results["reference"].ravel(), [0, 1, 1, 2, 2, 3, 3, 4])


# The classes and the widths that they are stored with.
STORED = [(Convolution, 8), (DepthwiseConvolution, 8), (FullyConnected, 8), (FullyConnected, 4), (FullyConnected, 2)]


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("kind, bits", STORED)
def test_the_largest_sums(kind, bits, sign):
    """The bias fills what the products leave of int32 (of 28 bits for 4-bit weights)."""
    heaviest = {8: 127, 4: 7, 2: 1}[bits]
    shape, kernel, result = {
        Convolution: ((2, 2, 8), (2, 2, 8, 3), (1, 1, 3)),
        DepthwiseConvolution: ((2, 2, 3), (2, 2, 3), (1, 1, 3)),
        FullyConnected: ((32,), (32, 3), (3,)),
    }[kind]
    x, output = tensor("x", shape, 1, -128), tensor("y", result, 1, -sign * 64)
    products = 255 * heaviest * int(np.prod(kernel)) // 3
    limit = 2**27 - 1 if bits == 4 else 2**31 - 1
    bias = np.int32([sign * (limit - products)] * 3)
    values = np.full(kernel, sign * heaviest, np.int8)
    scale = np.full(3, 64 / limit, np.float32)
    operator = kind((x,), output, values, scale, bias, "none", bits=bits)
    assert (operator.bounds() == limit).all() and (operator.largest_sum == limit).all()
    read = np.stack([np.full(shape, -128), np.full(shape, 127)]).astype(np.int8)
    results = assert_exact(operator, DEFINITIONS[kind], [read])
    assert set(results["xnnpack"][1].ravel()) == {0}


@pytest.mark.parametrize("kind, bits", STORED)
def test_bounds_are_reached(kind, bits):
    """With the input at the right end for each weight's sign, no bound is larger than what the kernel then adds up."""
    shape, kernel = {
        Convolution: ((3, 3, 2), (3, 3, 2, 4)),
        DepthwiseConvolution: ((3, 3, 4), (3, 3, 4)),
        FullyConnected: ((4,), (4, 4)),
    }[kind]
    largest = 2 ** (bits - 1) - 1
    values = np.random.default_rng(0).integers(-largest, largest, kernel, np.int8, endpoint=True)
    bias = np.int32([0, 5, -70, 10**6])
    x = tensor("x", shape, 1, 3, (-100, 120))
    operator = kind((x,), tensor("y", (4,), 1, 0), values, np.ones(4, np.float32), bias, "none", bits=bits)
    wide = values.astype(np.int64).reshape(-1, 4)
    above = np.where(wide > 0, wide * 117, wide * -103).sum(0)
    below = np.where(wide > 0, wide * -103, wide * 117).sum(0)
    np.testing.assert_array_equal(operator.bounds(), np.maximum(above, -below) + np.abs(bias))


def test_bounds_count_the_zeros_of_the_padding():
    """An input that is never below 3 makes products of at least 3 each, but for those that padding leaves out."""
    x = tensor("x", (2, 2, 1), 1, 0, (3, 5))
    values = np.int8([[[[1]], [[-1]]]])
    operator = Convolution((x,), tensor("y", (2, 2, 1), 1, 0), values, np.float32([1]), np.int32([0]), "none")
    assert operator.bounds() == [5]


@pytest.mark.parametrize("multiplier", [2.0**-32, 2.0**-31, 1 - 2.0**-24, 1.0, 1 + 2.0**-23, 256 * (1 - 2.0**-24)])
@pytest.mark.parametrize("kind, bits", STORED)
def test_the_ends_of_what_xnnpack_takes_as_multiplier(kind, bits, multiplier):
    shape, kernel = {
        Convolution: ((1, 16, 4), (1, 1, 4, 4)),
        DepthwiseConvolution: ((1, 16, 4), (1, 1, 4)),
        FullyConnected: ((16, 4), (4, 4)),
    }[kind]
    x, output = tensor("x", shape, 1, 1), tensor("y", shape, 1, 0)
    values = np.eye(4, dtype=np.int8) if kind is not DepthwiseConvolution else np.ones(4, np.int8)
    values = values.reshape(kernel)
    scale, bias = np.full(4, multiplier, np.float32), np.zeros(4, np.int32)
    operator = kind((x,), output, values, scale, bias, "none", bits=bits)
    limit = (operator.largest_sum - operator.bounds()).min()
    assert limit > 2**21
    operator = dataclasses.replace(operator, bias=np.int32([0, 1, limit, -limit]))
    assert_exact(operator, DEFINITIONS[kind], random_values(operator, 0))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("size, length", [(1, 6), (1, 7), (2, 6)])
@pytest.mark.parametrize("kind", [Convolution, DepthwiseConvolution])
def test_strides_of_two_where_same_pads_nothing(kind, size, length, padding):
    x = tensor("x", (length, length, 3), 0.5, -3)
    kernel = (size, size, 3) if kind is DepthwiseConvolution else (size, size, 3, 3)
    values = np.random.default_rng(0).integers(-127, 127, kernel, np.int8, endpoint=True)
    output = tensor("y", ((length + 1) // 2, (length + 1) // 2, 3), 100.0, 5)
    scale, bias, window = np.ones(3, np.float32), np.int32([0, 40, -40]), Window((2, 2), padding)
    operator = kind((x,), output, values, scale, bias, "none", window=window)
    assert_exact(operator, DEFINITIONS[kind], random_values(operator, 0))


@pytest.mark.parametrize("kind, bits", STORED)
def test_channels_whose_weights_are_all_zero_are_their_bias(kind, bits):
    shape, kernel = {
        Convolution: ((4, 4, 4), (3, 3, 4, 4)),
        DepthwiseConvolution: ((4, 4, 4), (3, 3, 4)),
        FullyConnected: ((4,), (4, 4)),
    }[kind]
    result = (4,) if kind is FullyConnected else (2, 2, 4)
    x, output = tensor("x", shape, 1, -128), tensor("y", result, 1, 10)
    bias = np.int32([0, 7, -7, 2**26])
    operator = kind((x,), output, np.zeros(kernel, np.int8), np.ones(4, np.float32), bias, "none", bits=bits)
    results = assert_exact(operator, DEFINITIONS[kind], random_values(operator, 0))
    assert (results["xnnpack"] == [10, 17, 3, 127]).all()


def test_one_channel_with_unequal_strides_and_an_output_of_width_1():
    """TensorFlow's own float32 convolution gives wrong sums here, with oneDNN."""
    x, output = tensor("x", (9, 4, 1), 1, 0), tensor("y", (7, 1, 2), 30, 0)
    values = np.random.default_rng(0).integers(-9, 9, (3, 4, 1, 2), np.int8)
    window = Window((1, 3))
    operator = Convolution((x,), output, values, np.ones(2, np.float32), np.zeros(2, np.int32), "none", window=window)
    assert_exact(operator, convolution, random_values(operator, 0))


TIES = [0.5, 1.5, 2.5, -0.5, -1.5, -2.5]
TO_EVEN, AWAY, UP = [0, 2, 2, 0, -2, -2], [1, 2, 3, -1, -2, -3], [1, 2, 3, 0, -1, -2]


@pytest.mark.parametrize("divisor", [2, 4])
@pytest.mark.parametrize("kind", [Convolution, DepthwiseConvolution, FullyConnected])
def test_ties(kind, divisor):
    """XNNPACK rounds to even, gemmlowp's arithmetic up or, with a shift to the right, away from zero."""
    kernel = {Convolution: (1, 1, 6, 6), DepthwiseConvolution: (1, 1, 6), FullyConnected: (6, 6)}[kind]
    shape = (6,) if kind is FullyConnected else (1, 1, 6)
    x, output = tensor("x", shape, 1, 0), tensor("y", shape, divisor, 0)
    bias = np.int32([divisor * tie for tie in TIES])
    operator = kind((x,), output, np.zeros(kernel, np.int8), np.ones(6, np.float32), bias, "none")
    results = assert_exact(operator, DEFINITIONS[kind], [np.zeros((1, *shape), np.int8)])
    twice = UP if divisor == 2 else AWAY
    reference = AWAY if kind is FullyConnected else twice
    found = {kernels: result.ravel().tolist() for kernels, result in results.items()}
    assert found == {"xnnpack": TO_EVEN, "reference": reference, "tflm": twice}


def test_rounding_twice_is_not_rounding_once():
    """A sum a little below the middle: the first rounding brings it there, the second away from zero."""
    x, output = tensor("x", (1,), 1, 0), tensor("y", (1,), 2.0**30, 0)
    values, weight_scale, bias = np.zeros((1, 1), np.int8), np.float32([1]), np.int32([2**29 - 1])
    operator = FullyConnected((x,), output, values, weight_scale, bias, "none")
    results = assert_exact(operator, fully_connected, [np.zeros((1, 1), np.int8)])
    assert {kernels: int(result.item()) for kernels, result in results.items()} == {
        "xnnpack": 0,
        "reference": 0,  # its FULLY_CONNECTED rounds a float64 product
        "tflm": 1,
    }


def test_the_micro_fully_connected_multiplies_scales_in_float32():
    """A product of scales that float32 rounds up to 1/8, whose mantissa then has one bit less: 3/8 becomes 1."""
    one, other = np.float32(1 + 2.0**-13), np.float32(0.125 * (1 - 2.0**-13))
    assert one * other == 0.125 > np.float64(one) * np.float64(other)
    x, output = tensor("x", (1,), one, 0), tensor("y", (1,), 1, 0)
    operator = FullyConnected((x,), output, np.int8([[1]]), other[None], np.int32([0]), "none")
    results = assert_exact(operator, fully_connected, [np.int8([[3]])])
    assert {kernels: int(result.item()) for kernels, result in results.items()} == {
        "xnnpack": 0,
        "reference": 0,
        "tflm": 1,
    }


@pytest.mark.parametrize("bits, version, runtime", [(8, 4, "1.14.0"), (4, 10, "2.11.0"), (2, 14, "2.21.0")])
def test_versions_of_fully_connected(bits, version, runtime):
    """Runtimes take lower ones, too, so no interpreter tells."""
    x, output = tensor("x", (4,), 1, 0), tensor("y", (1,), 1, 0)
    values = np.zeros((4, 1), np.int8)
    operator = FullyConnected((x,), output, values, np.float32([1]), np.int32([0]), "none", bits=bits)
    assert (operator.version, operator.runtime) == (version, runtime)


@pytest.mark.parametrize("bits", [2, 4, 7])
def test_saturation_is_the_upper_clip_of_a_narrow_unsigned_grid(bits):
    """Sums from far below 0 to far beyond the clip give the levels 0 .. 2^k - 1, at the top of int8."""
    top = 2**bits - 1
    x, output = tensor("x", (1, 256, 1), 1, 0), tensor("y", (1, 256, 1), 1, 127 - top)
    operator = Convolution((x,), output, np.ones((1, 1, 1, 1), np.int8), np.float32([1]), np.int32([0]), "relu")
    read = np.arange(-128, 128).astype(np.int8).reshape(1, 1, 256, 1)
    for levels in assert_exact(operator, convolution, [read]).values():
        np.testing.assert_array_equal(levels.ravel() - output.zero_point, np.clip(np.arange(-128, 128), 0, top))
