"""Weights against NumPy definitions, and their gradients against closed forms."""

import numpy as np
import pytest
import tensorflow as tf

from satkeras.formulas import weights

BITS = range(2, 9)


def test_clamp_weights_is_tanh_over_its_maximum():
    latent = np.random.default_rng(0).normal(size=(3, 3, 4, 5))
    bounded = np.tanh(latent)
    np.testing.assert_allclose(
        weights.clamp_weights(tf.constant(latent, tf.float32)), bounded / np.abs(bounded).max(), rtol=1e-6
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_clamp_weights_is_differentiated_through_the_maximum(sign, value_and_gradients):
    latent = sign * np.array([0.3, -0.7, 1.2, 0.1])
    incoming = np.array([1.0, 2.0, -3.0, 0.5])
    bounded = np.tanh(latent)
    slope = 1 - bounded**2
    expected = incoming * slope / abs(bounded[2])
    # y_i = t_i / |t_2|, so t_2 also takes the gradient of every y through the denominator.
    expected[2] -= sign * slope[2] * (incoming @ bounded) / bounded[2] ** 2
    _, gradient = value_and_gradients(weights.clamp_weights, latent, incoming=incoming)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("latent", "expected"),
    [
        ([0.0, 0.0], [0.0, 0.0]),
        ([0.3, 0.3], [1.0, 1.0]),
        ([-1e30, 1e30, 0], [-1.0, 1.0, 0.0]),
        ([1e-30, 0.0], [1.0, 0.0]),
    ],
    ids=["zeros", "constant", "huge", "tiny"],
)
def test_clamp_weights_of_degenerate_tensors(latent, expected, value_and_gradients):
    value, gradient = value_and_gradients(weights.clamp_weights, latent)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("num_bits", BITS)
def test_odd_grid_has_every_odd_integer_and_no_other(num_bits, value_and_gradients):
    steps = 2**num_bits - 1
    x = np.linspace(-1, 1, 20 * steps)
    value, gradient = value_and_gradients(lambda x: weights.odd_grid_ste(x, num_bits), x)
    integers = value * steps
    np.testing.assert_allclose(integers, np.rint(integers), atol=1e-4)
    assert set(np.rint(integers).astype(int)) == set(range(-steps, steps + 1, 2))
    assert np.abs(value - x).max() <= (1 + 1e-4) / steps
    np.testing.assert_allclose(gradient, 1, rtol=1e-6)


@pytest.mark.parametrize("num_bits", BITS)
def test_symmetric_grid_has_every_integer(num_bits, value_and_gradients):
    steps = 2 ** (num_bits - 1) - 1
    x = np.linspace(-1, 1, 20 * steps + 1)
    value, gradient = value_and_gradients(lambda x: weights.symmetric_grid_ste(x, num_bits), x)
    assert set(np.rint(value * steps).astype(int)) == set(range(-steps, steps + 1))
    assert np.abs(value - x).max() <= (0.5 + 1e-4) / steps
    np.testing.assert_allclose(gradient, 1, rtol=1e-6)


@pytest.mark.parametrize("shape", [(7,), (5, 6), (3, 3, 2, 4)])
def test_rescale_factor_uses_the_unbiased_variance_and_is_constant(shape, value_and_gradients):
    values = np.random.default_rng(0).normal(1.0, 2.0, shape)
    factor, gradient = value_and_gradients(lambda x: weights.rescale_factor(x, 0.25), values)
    assert factor == pytest.approx(0.25 / np.std(values, ddof=1), rel=1e-5)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize(
    "values",
    [np.zeros(9), np.full(1001, 0.1), np.full((3, 3), -1.0), np.ones(1)],
    ids=["zeros", "tenths", "ones", "one"],
)
def test_rescale_factor_takes_a_tensor_without_variance_as_variance_1(values):
    assert float(weights.rescale_factor(tf.constant(values, tf.float32), 0.25)) == pytest.approx(0.25)


@pytest.mark.parametrize("count", [30, 270, 2304])
def test_a_standard_deviation_is_the_same_number_in_graphs(count):
    values = tf.Variable(np.random.default_rng(count).normal(0, 0.1, (50, count)).astype(np.float32))

    def deviations():
        return tf.stack([weights.unbiased_stddev(row) for row in tf.unstack(values)])

    np.testing.assert_array_equal(tf.function(deviations)(), deviations())


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: weights.odd_grid_ste(weights.clamp_weights(x), 4),
        lambda x: weights.symmetric_grid_ste(weights.clamp_weights(x), 8),
        lambda x: x * weights.rescale_factor(x, 0.1),
    ],
    ids=["odd", "symmetric", "rescale"],
)
def test_graphs_and_xla_compute_the_same(function, jit_compile, value_and_gradients):
    x = np.random.default_rng(1).normal(size=(4, 9)).astype(np.float32)
    eager = value_and_gradients(function, x)
    compiled = value_and_gradients(tf.function(function, jit_compile=jit_compile), x)
    for one, other in zip(compiled, eager, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
