"""Weighted sums as large as they get: beyond float32, up to the ends of int32, and their bounds."""

import numpy as np
import pytest

from tests.tflite_export.operators.agreement import assert_exact
from tests.tflite_export.operators.drawing import tensor
from tests.tflite_export.operators.sums import DEFINITIONS, STORED, fully_connected
from tflite_export.operators import Convolution, DepthwiseConvolution, FullyConnected, LinearOperator
from tflite_export.operators.arithmetic import EXACT_IN_FLOAT32


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
