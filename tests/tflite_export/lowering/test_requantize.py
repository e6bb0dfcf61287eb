"""Tests of an operator's integers: a requantization is the same however a kernel rounds, and no sum wraps."""

import math

import numpy as np
import pytest
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st
from tf_keras import layers

from tflite_export.lowering.closing import close_sum, requantized
from tflite_export.lowering.lower import make_plan
from tflite_export.lowering.pending import Pending, Problem, WeightedSum
from tflite_export.lowering.requantize import linear_operator, multiply_operator
from tflite_export.operators import FullyConnected, MultiplyConstant
from tflite_export.plan import KERNELS, Tensor

steps = st.one_of(st.integers(-9, 1).map(lambda exponent: 2.0**exponent), st.floats(2**-9, 2))


@st.composite
def stored(draw) -> Tensor:
    """An 8-bit stream: codes of a ReLU's result, or with a zero point anywhere."""
    step, zero_point = draw(steps), draw(st.sampled_from([-128, 0, 37]))
    return Tensor("x", (16, 16, 1), np.float32(step), zero_point, float(np.float32(step)))


@st.composite
def narrow(draw) -> tuple[Tensor, str]:
    """A grid of 1 to 8 bits, unsigned at the top of int8 or signed around zero, and what clips to it."""
    bits, step = draw(st.integers(1, 8)), draw(steps)
    if bits > 1 and draw(st.booleans()):
        top = 2 ** (bits - 1) - 1
        scale, step = np.float32(1 / top), float(np.float32(step))
        return Tensor("y", (16, 16, 1), scale, 0, step, -top, top), "relu_n1_to_1"
    zero_point = 128 - 2**bits
    step = float(np.float32(step))
    return Tensor("y", (16, 16, 1), np.float32(step), zero_point, step, zero_point, 127), "relu"


def codes_of(x: Tensor) -> np.ndarray:
    return np.arange(x.lowest, x.highest + 1) - x.zero_point


def clamped(levels, output: Tensor) -> np.ndarray:
    return np.clip(levels, output.lowest - output.zero_point, output.highest - output.zero_point).astype(int)


def steps_of(operator: MultiplyConstant) -> int:
    """The constant, in its own steps from its zero point."""
    return operator.integer - operator.constant_zero_point


def fixed_point(operator: MultiplyConstant, double: bool) -> np.ndarray:
    """What kernels with 31-bit multipliers make of every code: gemmlowp's two roundings, or XNNPACK's one on Arm."""
    product = [int(code) * steps_of(operator) for code in codes_of(operator.inputs[0])]
    fraction, exponent = math.frexp(float(operator.multiplier))
    multiplier, shift = round(fraction * 2**31), -exponent
    if double:
        high = [(value * multiplier + (1 << 30)) >> 31 for value in product]
        values = [value << -shift if shift < 0 else value for value in high]
        return np.array([(value + (1 << shift - 1)) >> shift if shift > 0 else value for value in values])
    high = [(value << 8) * multiplier >> 31 for value in product]
    return np.array([(value + (1 << shift + 7)) >> shift + 8 for value in high])


@settings(deadline=None, derandomize=True, database=None, max_examples=300)
@given(stored(), narrow())
def test_no_kernels_rounding_matters(x, grid):
    output, activation = grid
    operator = multiply_operator(requantized(x), output, activation)
    assert 2**-16 <= operator.multiplier < 2**8
    ratio = x.step / output.step
    codes = codes_of(x)
    # Of a tie, as the training model has it above zero.
    expected = clamped(np.sign(codes) * np.floor(np.abs(codes) * ratio + 0.5), output)
    product = (codes * steps_of(operator)).astype(np.float32) * operator.multiplier
    assert product.dtype == np.float32
    np.testing.assert_array_equal(clamped(np.rint(product), output), expected)
    np.testing.assert_array_equal(clamped(np.floor(product + 0.5), output), expected)
    np.testing.assert_array_equal(clamped(fixed_point(operator, double=False), output), expected)


@pytest.mark.parametrize("ratio", [1 / 2, 1 / 8, 3 / 8, 1 / 10, 0.123, 1.7])
def test_narrow_grids_survive_double_rounding(ratio):
    """TFLite's reference kernels round the product twice; a few bits leave room for that."""
    x = Tensor("x", (16, 16, 1), np.float32(0.25), -128, 0.25)
    step = 0.25 / ratio
    output = Tensor("y", (16, 16, 1), np.float32(step), 112, step, 112, 127)
    operator = multiply_operator(requantized(x), output, "relu")
    exact = clamped(np.floor(codes_of(x) * ratio + 0.5), output)
    np.testing.assert_array_equal(clamped(fixed_point(operator, double=True), output), exact)


@pytest.mark.parametrize("ratio", [200, 255, 256, 300.5, 2.0**20, 1e30])
@pytest.mark.parametrize("grid", [(-128, -128, "none"), (0, -128, "none"), (112, 112, "relu")], ids=str)
def test_steps_far_apart_only_saturate(ratio, grid):
    """TFLite takes multipliers below 2^8; with those, too, a step of the input is beyond the output's last level."""
    zero_point, lowest, activation = grid
    x = Tensor("x", (16, 16, 1), np.float32(2.0), 37, 2.0)
    output = Tensor("y", (16, 16, 1), np.float32(2 / ratio), zero_point, 2 / ratio, lowest)
    operator = multiply_operator(requantized(x), output, activation)
    assert operator.multiplier < 2**8
    exact = clamped(np.floor(codes_of(x) * float(x.step / output.step) + 0.5), output) + zero_point
    for kernels in KERNELS:
        found = np.asarray(operator.compute([np.arange(-128.0, 128.0, dtype=np.float32)], kernels))
        np.testing.assert_array_equal(found, exact)


@pytest.mark.parametrize(
    "step, bias, fits",
    [
        (1 - 2.0**-10, 2**30, True),
        (1, 2**30 - 1 - 128, True),
        (1, 2**30 - 128, False),  # from a multiplier of 1 on, kernels that round twice shift a sum to the left
        (2, 2**29 - 128, False),
    ],
)
def test_no_sum_wraps(step, bias, fits):
    """One weight of 1 on an input of -128 .. 127, so that the sum reaches the bias and 128."""
    x, y = (Tensor(name, (1,), np.float32(1), 0, 1.0) for name in "xy")
    weights = np.ones((1, 1), np.int64)
    total = WeightedSum(FullyConnected, "dense", weights, 1, np.float64([step]), np.float64([bias * step]))
    pending = Pending((x,), (), close_sum, total)
    if fits:
        operator = linear_operator(pending, x, y, "none")
        assert operator.bounds() == bias + 128 <= operator.largest_sum
        return
    with pytest.raises(Problem, match="the sum of channel 0 can reach"):
        linear_operator(pending, x, y, "none")


@pytest.mark.parametrize("zero_point, activation", [(-128, "none"), (0, "none"), (112, "relu")])
@pytest.mark.parametrize("steps", [255.6, 256, 1e4, 1e12])
def test_a_sum_of_steps_beyond_the_last_level_only_saturates(steps, zero_point, activation):
    """TFLite takes multipliers below 2^8."""
    x = Tensor("x", (2,), np.float32(1), 0, 1.0)
    lowest = zero_point if activation == "relu" else -128
    output = Tensor("y", (2,), np.float32(1 / steps), zero_point, 1 / steps, lowest)
    total = WeightedSum(
        FullyConnected, "dense", np.array([[1, 0], [-2, 0]]), 1, np.array([1.0, 1.0]), np.array([3.0, -1.0])
    )
    operator = linear_operator(Pending((x,), (), close_sum, total), x, output, activation)
    assert operator.multiplier.max() < 2**8
    assert operator.saturating_channels == (0, 1)
    values = np.array([[-3, 0], [0, 0], [1, 2], [1, 1], [-128, 127]], np.float32)
    levels = (values @ total.weights + total.bias) * steps
    exact = np.clip(levels + zero_point, output.lowest, 127)
    for kernels in KERNELS:
        np.testing.assert_array_equal(np.asarray(operator.compute([values], kernels)), exact)


def dense_of(steps, biases, spread=1) -> FullyConnected:
    """Weights 1 and -2 of two channels in these steps, on an int8 input; the output's levels are the whole numbers."""
    x, y = (Tensor(name, (2,), np.float32(1), 0, 1.0) for name in "xy")
    weights = np.array([[1, 1], [-2, -2]])
    total = WeightedSum(FullyConnected, "dense", weights, spread, np.float64(steps), np.float64(biases))
    return linear_operator(Pending((x,), (), close_sum, total), x, y, "none")


@pytest.mark.parametrize("step", [0.0, 1e-30, 1e-9])
def test_a_dense_channel_that_cannot_move_its_level_is_constant(step):
    operator = dense_of([0.25, step], [3.0, 7.4])
    assert operator.constant_channels == (1,) and not operator.weights[:, 1].any()
    for kernels in KERNELS:
        found = np.asarray(operator.compute([np.array([[4, 0], [-126, 127]], np.float32)], kernels))
        np.testing.assert_array_equal(found, [[4, 7], [-92, 7]])


def test_a_bias_that_needs_the_room_keeps_weights_unspread():
    """Spread over int8, its 2^26 steps were 2^31.6."""
    step = 40.25 / 2**26
    operator = dense_of([0.25, step], [3.0, 40.25], spread=50)
    assert np.abs(operator.weights).max(0).tolist() == [100, 2] and operator.bias[1] == 2**26
    assert operator.constant_channels == ()
    with pytest.raises(Problem, match=r"channels \[1\] are so small beside their bias"):
        dense_of([0.25, 40.5 / 2**31], [3.0, 40.5], spread=50)


def test_a_relu_of_a_stored_tensor_is_fused_into_what_stores_it_anew(trained):
    stack = [layers.Conv2D(4, 3), layers.MaxPooling2D(2), layers.ReLU(), layers.Conv2D(2, 1)]
    plan = make_plan(trained(tf_keras.Sequential([layers.Input((8, 8, 3)), *stack])))
    assert [operator.builtin for operator in plan.operators] == ["CONV_2D", "MAX_POOL_2D", "MUL", "CONV_2D"]
