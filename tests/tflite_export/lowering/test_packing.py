"""Tests of packed weights: which widths they get, and what keeps them wider."""

import dataclasses

import numpy as np
import pytest

from tflite_export.lowering.packing import pack_weights
from tflite_export.operators import Convolution, FullyConnected, Window
from tflite_export.plan import Plan, Tensor


def plan_of(operator) -> Plan:
    return Plan(operator.inputs, (operator,), (operator.output,), ("x",), ("y",))


def packed(operator):
    (found,) = pack_weights(plan_of(operator)).operators
    return found


def fully_connected(integers, bias=0, multiplier=2.0**-20, spread=None) -> FullyConnected:
    """16 inputs of -128 .. 127 on weights that are so many times these integers, or spread over int8."""
    weights = np.resize(np.asarray(integers, np.int64), (16, 2))
    weights *= spread or 127 // np.abs(weights).max()
    x = Tensor("x", (16,), np.float32(1), 0, 1.0)
    y = Tensor("y", (2,), np.float32(1), 0, 1.0)
    scale, biases = np.full(2, multiplier, np.float32), np.full(2, bias, np.int32)
    return FullyConnected((x,), y, weights.astype(np.int8), scale, biases, "none")


@pytest.mark.parametrize(
    "integers, bits, stored",
    [([1, -1, 0], 2, 1), ([1, -2, 0], 2, 2), ([3, -3, 1], 4, 6), ([7, -7, 2], 4, 7), ([15, -15, 2], 8, 120)],
)
def test_the_narrowest_width_that_holds_the_integers(integers, bits, stored):
    operator = packed(fully_connected(integers))
    assert operator.bits == bits and np.abs(operator.weights).max() == stored


def test_sums_are_the_same_in_real_numbers():
    before = fully_connected([7, -7, 2], bias=18 * 1000)
    after = packed(before)
    assert after.bits == 4
    for one in ("weights", "bias"):
        np.testing.assert_allclose(getattr(after, one) * after.weight_scale, getattr(before, one) * before.weight_scale)


@pytest.mark.parametrize("beyond", [0, 1])
def test_weights_stay_int8_where_a_sum_of_4_bit_weights_could_wrap(beyond):
    """XNNPACK adds up 16 times the products of 4-bit weights. Here they are not spread, so neither is the bias."""
    integers, limit = [7, -7, 2], 2**27 - 1
    reach = int(packed(fully_connected(integers, spread=1)).bounds().max())
    operator = packed(fully_connected(integers, bias=limit - reach + beyond, spread=1))
    assert operator.bits == (8 if beyond else 4)


def test_weights_stay_wider_where_biases_would_lose_half_a_level():
    assert packed(fully_connected([1, -1, 0], multiplier=0.9 / 127)).bits == 2
    assert packed(fully_connected([1, -1, 0], multiplier=1.1 / 127)).bits == 4
    assert packed(fully_connected([1, -1, 0], multiplier=7.1 / 127)).bits == 8


def test_rows_of_half_bytes_stay_int8():
    operator = fully_connected([1, -1, 0])
    x = dataclasses.replace(operator.inputs[0], shape=(15,))
    odd = dataclasses.replace(operator, inputs=(x,), weights=operator.weights[:15])
    assert packed(odd).bits == 8


@pytest.mark.parametrize("strides, kind", [((1, 1), FullyConnected), ((2, 2), Convolution)])
def test_a_convolution_of_single_pixels_becomes_fully_connected(strides, kind):
    dense = fully_connected([1, -1, 0])
    x, y = (dataclasses.replace(one, shape=(1, 1, *one.shape)) for one in (*dense.inputs, dense.output))
    weights, window = dense.weights.reshape(1, 1, 16, 2), Window(strides)
    operator = Convolution((x,), y, weights, dense.weight_scale, dense.bias, "none", window=window)
    assert type(packed(operator)) is kind


def test_weights_that_are_all_zero_keep_their_steps():
    """No bias is known more finely than it was rounded to."""
    operator = packed(fully_connected([0, 0], bias=54, spread=1))
    assert operator.bits == 2 and operator.bias[0] == 54
    wide = packed(fully_connected([0, 0], bias=54, spread=1, multiplier=2.0))
    assert wide.bits == 8 and wide.bias[0] == 54
