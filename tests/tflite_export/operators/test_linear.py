"""Tests of the weighted sums: CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.tflite_export.operators.agreement import Sample, assert_exact, assert_sample_exact, random_values
from tests.tflite_export.operators.drawing import (
    images,
    outputs,
    seeds,
    sizes,
    tensor,
    tensors,
    windowed_shape,
    windows,
)
from tests.tflite_export.operators.sums import DEFINITIONS, STORED, convolution, depthwise, fully_connected
from tflite_export.operators import Convolution, DepthwiseConvolution, FullyConnected, LinearOperator, Window

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
