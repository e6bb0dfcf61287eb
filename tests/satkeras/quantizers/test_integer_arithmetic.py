"""Plain 8-bit quantizers: weights by their maximum, activations by a moving range, the model's input as codes."""

import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from satkeras.quantizers import InputQuantizer, MaxWeightQuantizer, MovingRangeQuantizer
from satkeras.quantizers.quant_params import activation_levels

BITS = range(2, 9)
# Shape, whether depthwise, and the axes that share a scale.
KERNELS = {
    "dense": ((20, 6), False, (0, 1)),
    "conv": ((3, 3, 4, 5), False, (0, 1, 2)),
    "depthwise": ((3, 3, 5, 1), True, (0, 1, 3)),
}
kernels = pytest.mark.parametrize(("shape", "depthwise", "axes"), KERNELS.values(), ids=KERNELS.keys())
CODES = {
    "bytes": ((0.0, 255.0), 1, 0),
    "unit": ((0.0, 1.0), 1 / 255, 0),
    "coral": ((-1.0, 127 / 128), 1 / 128, 128),
    "int8": ((-128.0, 127.0), 1, 128),
}
codes = pytest.mark.parametrize(("input_range", "scale", "zero_point"), CODES.values(), ids=CODES.keys())


@kernels
@pytest.mark.parametrize("num_bits", BITS)
def test_max_weights(num_bits, shape, depthwise, axes, value_and_gradients, integers_on_grid):
    rng = np.random.default_rng(0)
    latent, incoming = rng.normal(size=(2, *shape)).astype(np.float32)
    quantizer = MaxWeightQuantizer(num_bits, depthwise)
    value, gradient = value_and_gradients(lambda w: quantizer(w, True, {}), latent, incoming=incoming)
    top = 2 ** (num_bits - 1) - 1
    scale = np.abs(latent).max(axes, keepdims=True).astype(np.float64) / top
    expected = np.rint(latent / scale)
    np.testing.assert_allclose(value, expected * scale, rtol=1e-5, atol=1e-6)
    # The scale is a constant, even at the largest weight.
    np.testing.assert_allclose(gradient, incoming, rtol=1e-5)
    integers = integers_on_grid(quantizer, latent, {}, latent)
    np.testing.assert_array_equal(integers, expected)
    assert (np.abs(integers).max(axes) == top).all()


def test_full_precision_max_weights_are_the_latent_ones():
    latent = tf.constant([[0.3, -2.7]])
    np.testing.assert_array_equal(MaxWeightQuantizer(None)(latent, True, {}), latent)


@pytest.mark.parametrize(
    "channel",
    [np.zeros(9), np.full(9, 0.3), np.full(9, 1e30), np.full(9, 1e-30), np.full(9, 1.2e-38)],
    ids=["zeros", "constant", "huge", "tiny", "smallest"],
)
@pytest.mark.parametrize("num_bits", BITS)
def test_max_weights_of_degenerate_channels(num_bits, channel, integers_on_grid, value_and_gradients):
    latent = np.stack([channel, np.linspace(-1, 1, 9)], 1).reshape(3, 3, 1, 2)
    quantizer = MaxWeightQuantizer(num_bits)
    integers = integers_on_grid(quantizer, latent, {}, latent)
    top = 2 ** (num_bits - 1) - 1
    # A channel at the end of float32 may count as zero.
    allowed = {0} if not channel.any() else {0, top} if channel.max() < 1e-37 else {top}
    assert set(integers[..., 0].ravel()) <= allowed
    assert set(integers[..., 1].ravel()) >= {-integers[..., 1].max(), 0}
    _, gradient = value_and_gradients(lambda w: quantizer(w, True, {}), latent)
    np.testing.assert_allclose(gradient, 1, rtol=1e-5)


@given(
    latent=arrays.arrays(np.float32, (2, 2, 2, 3), elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False)),
    num_bits=st.sampled_from(BITS),
    depthwise=st.booleans(),
)
def test_max_weights_are_on_their_grid_and_near(latent, num_bits, depthwise, integers_on_grid):
    quantizer = MaxWeightQuantizer(num_bits, depthwise)
    params = quantizer.quant_params({}, latent)
    integers = integers_on_grid(quantizer, latent, {}, latent)
    step = params.dequantize(np.ones_like(integers))
    assert (np.abs(params.dequantize(integers) - latent) <= 0.501 * step).all()


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("num_bits", BITS)
def test_moving_range_clips_and_rounds(num_bits, signed, variables_of, value_and_gradients, integers_on_grid):
    quantizer = MovingRangeQuantizer(num_bits, signed)
    variables = variables_of(quantizer)
    variables["range"].assign(1.7)
    qmin, qmax = activation_levels(num_bits, signed)
    step = 1.7 / qmax
    x = np.random.default_rng(0).uniform(-3, 3, 3000).astype(np.float32)
    x = x[np.abs(x / step % 1 - 0.5) > 1e-3]
    value, gradient = value_and_gradients(lambda x: quantizer(x, False, variables), x, incoming=2.0)
    expected = np.clip(np.rint(x / step), qmin, qmax)
    np.testing.assert_allclose(value, expected * step, atol=1e-5)
    np.testing.assert_array_equal(gradient, np.where((x > qmin * step) & (x < 1.7), 2, 0))
    np.testing.assert_array_equal(integers_on_grid(quantizer, x, variables), expected)


def test_moving_range_follows_the_training_batches(variables_of):
    quantizer = MovingRangeQuantizer(8, signed=True, decay=0.9)
    variables = variables_of(quantizer)
    assert not variables["range"].trainable
    expected = 0.0
    for batch in ([0.1, -4.0], [2.0, 1.0], [0.0, 0.0], [10.0, -1.0]):
        quantizer(tf.constant(batch), True, variables)
        expected = 0.9 * expected + 0.1 * max(map(abs, batch)) if expected else max(map(abs, batch))
        assert float(variables["range"]) == pytest.approx(expected)
        quantizer(tf.constant([1000.0]), False, variables)
        assert float(variables["range"]) == pytest.approx(expected), "inference must not move the range"


@pytest.mark.parametrize("signed", [False, True])
def test_a_training_batch_beyond_the_moving_range_is_not_clipped(signed, variables_of, value_and_gradients):
    quantizer = MovingRangeQuantizer(8, signed)
    variables = variables_of(quantizer)
    quantizer(tf.constant([1.0]), True, variables)
    x = np.linspace(0, 10, 50).astype(np.float32)
    value, gradient = value_and_gradients(lambda x: quantizer(x, True, variables), x)
    np.testing.assert_allclose(value, x, atol=0.501 * 10 / quantizer.levels[1])
    np.testing.assert_array_equal(gradient, 1)
    assert float(variables["range"]) < 2
    # Inference has the average.
    np.testing.assert_allclose(quantizer(x, False, variables)[-1], variables["range"], rtol=1e-6)


def test_moving_range_has_no_gradient(variables_of):
    quantizer = MovingRangeQuantizer(4, signed=True, decay=0.0)
    x = tf.constant([-3.0, 0.2, 1.0, 2.9])
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(quantizer(x, True, variables_of(quantizer)))
    # The range is the largest magnitude of this very batch, yet -3.0 gets its own gradient only.
    np.testing.assert_array_equal(tape.gradient(total, x), 1)


def test_moving_range_before_training_is_the_batchs(variables_of):
    quantizer = MovingRangeQuantizer(2)
    variables = variables_of(quantizer)
    np.testing.assert_array_equal(quantizer(tf.constant([0.0, 1.0, 2.9, 6.0]), False, variables), [0, 2, 2, 6])
    assert float(variables["range"]) == 0
    with pytest.raises(ValueError, match="range is still unknown: train the model for at least one step"):
        quantizer.quant_params({"range": np.float32(0)})


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    "x", [np.zeros(5), np.full(5, 0.3), -np.ones(5), np.ones(1), np.full(3, 1e30), np.full(3, 1e-30)]
)
def test_moving_range_of_degenerate_batches(x, signed, variables_of, value_and_gradients):
    quantizer = MovingRangeQuantizer(8, signed)
    variables = variables_of(quantizer)
    value, gradient = value_and_gradients(lambda x: quantizer(x, True, variables), x)
    assert np.isfinite(value).all()
    assert np.isfinite(gradient).all()
    if x.any():
        quantizer.quant_params({"range": variables["range"].numpy()}).integers_of(value)


@pytest.mark.parametrize("decay", [-0.1, 1.0, np.nan])
def test_decays_that_are_refused(decay):
    with pytest.raises(ValueError, match=rf"decay must lie in \[0, 1\). Received: decay={decay}"):
        MovingRangeQuantizer(decay=decay)


@codes
def test_input_codes(input_range, scale, zero_point, value_and_gradients, integers_on_grid):
    quantizer = InputQuantizer(*input_range)
    params = quantizer.quant_params({})
    assert (params.zero_point, params.qmin, params.qmax) == (zero_point, 0, 255)
    assert params.scale == pytest.approx(scale)
    levels = (np.arange(256) - zero_point) * scale
    assert tuple(levels[[0, -1]]) == pytest.approx(input_range)
    np.testing.assert_array_equal(integers_on_grid(quantizer, levels, {}), np.arange(256))
    value, gradient = value_and_gradients(lambda x: quantizer(x, False, {}), levels + 0.4 * scale)
    np.testing.assert_allclose(value, levels, atol=1e-4 * scale)
    np.testing.assert_array_equal(gradient, [1] * 255 + [0])


@codes
def test_input_outside_the_range_saturates(input_range, scale, zero_point, integers_on_grid):
    beyond = [input_range[0] - 2 * scale, input_range[1] + 2 * scale, -1e30, 1e30]
    np.testing.assert_array_equal(integers_on_grid(InputQuantizer(*input_range), beyond, {}), [0, 255, 0, 255])


@pytest.mark.parametrize(
    "input_range",
    [(1.0, 2.0), (-2.0, -1.0), (0.0, 0.0), (1.0, 0.0), (np.nan, 1.0), (0.0, np.inf), (-np.inf, 0.0)],
)
def test_input_ranges_that_are_refused(input_range):
    message = f"input_range must be (low, high) with low <= 0 <= high. Received: {input_range}"
    with pytest.raises(ValueError, match=re.escape(message)):
        InputQuantizer(*input_range)


def batch(low, high):
    return np.random.default_rng(0).uniform(low, high, (4, 8, 8, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("input_range", "x"),
    [
        ((0.0, 255.0), batch(0, 1)),
        ((0.0, 255.0), batch(-1, 1)),
        ((0.0, 255.0), batch(-128, 127)),
        ((0.0, 1.0), batch(0, 255)),
        ((0.0, 1.0), batch(-1, 1)),
        ((0.0, 1.0), batch(0, 1) / 255),
        ((-1.0, 127 / 128), batch(0, 255)),
        ((-128.0, 127.0), batch(0, 255)),
        ((-128.0, 127.0), batch(-1, 1)),
        ((0.0, 255.0), np.full((4, 8, 8, 3), np.nan)),
    ],
)
def test_training_on_other_units_stops(input_range, x):
    quantizer = InputQuantizer(*input_range)
    with pytest.raises(tf.errors.InvalidArgumentError, match=re.escape(f"input_range={input_range}")):
        quantizer(tf.constant(x, tf.float32), True, {})
    quantizer(tf.constant(x, tf.float32), False, {})


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "graph"])
@codes
def test_training_on_the_right_units_goes_on(input_range, scale, zero_point, compiled):
    quantizer = InputQuantizer(*input_range)
    call = tf.function(quantizer) if compiled else quantizer
    black, white = np.full((4, 8), input_range[0]), np.full((4, 8), input_range[1])
    constant = black + 3.4 * scale  # no code, but no sign of other units either
    for x in (batch(*input_range), np.zeros((4, 8)), black, white, black + 3 * scale, constant):
        call(tf.constant(x, tf.float32), True, {})


def test_graphs_stop_on_other_units():
    with pytest.raises(tf.errors.InvalidArgumentError, match="input_range"):
        tf.function(InputQuantizer())(tf.constant(batch(0, 1)), True, {})


@pytest.mark.parametrize("signed", [False, True])
def test_a_tensor_of_zeros_gets_a_range_of_one_until_it_lives(signed, variables_of):
    quantizer = MovingRangeQuantizer(8, signed=signed)
    variables = variables_of(quantizer)
    assert not np.any(quantizer(tf.zeros((2, 4)), True, variables))
    top = quantizer.levels[1]
    assert quantizer.quant_params(variables).scale == pytest.approx(1 / top)
    quantizer(tf.fill((2, 4), 0.25), True, variables)
    assert quantizer.quant_params(variables).scale == pytest.approx(0.25 / top)
