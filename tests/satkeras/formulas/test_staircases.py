"""Staircases and their sigmoids against NumPy definitions of the paper's equations."""

import numpy as np
import pytest
import tensorflow as tf

from satkeras.formulas import kernels, staircases

LEVELS = pytest.mark.parametrize("levels", [(-1, 1), (-4, -2, -1, 0, 1, 2, 4), (0, 1, 2, 3)], ids=str)
SOFT_FORMS = pytest.mark.parametrize(
    "soft_staircase", [staircases.soft_staircase, kernels.soft_staircase], ids=["formula", "kernel"]
)


@LEVELS
def test_a_staircase_rises_at_its_thresholds(levels):
    thresholds = np.arange(len(levels) - 1) - 1.25
    x = np.linspace(-3, 3, 401)
    found = staircases.staircase(*(tf.constant(value, tf.float32) for value in (x, 0.3, 2.0, thresholds)), levels)
    expected = 0.3 * np.array(levels)[(2 * x[:, None] >= thresholds).sum(1)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(np.unique(found.numpy().round(4)).size, len(levels))


def test_a_value_on_a_threshold_belongs_to_the_level_above():
    levels, thresholds = (-1, 0, 1), tf.constant([-0.5, 0.5])
    found = staircases.staircase(tf.constant([-0.25, 0.25]), tf.constant(3.0), tf.constant(2.0), thresholds, levels)
    np.testing.assert_array_equal(found, [0, 3])


def test_only_alpha_has_a_gradient_on_a_staircase(value_and_gradients):
    x = [-0.3, 0.1, 0.9]
    value, dx, dalpha, dbeta, dthresholds = value_and_gradients(
        lambda *tensors: staircases.staircase(*tensors, (-1, 0, 1)), x, 0.3, 2.0, [-0.5, 0.5], incoming=[1.0, 2.0, 4.0]
    )
    np.testing.assert_array_equal(value, np.float32([-0.3, 0, 0.3]))
    assert dalpha == 3
    assert not np.any(dx) and not np.any(dbeta) and not np.any(dthresholds)


@SOFT_FORMS
@pytest.mark.parametrize("temperature", [4.0, 30.0])
@LEVELS
def test_a_soft_staircase_and_its_gradients(soft_staircase, levels, temperature, value_and_gradients):
    rng = np.random.default_rng(2)
    x = rng.normal(0, 1, 300)
    incoming = rng.normal(size=300)
    alpha, beta = 0.3, 1.7
    thresholds = np.convolve(levels, [0.5, 0.5], "valid") + 0.1
    found = value_and_gradients(
        lambda *tensors: soft_staircase(*tensors, tf.constant(temperature), levels),
        *(x, alpha, beta, thresholds),
        incoming=incoming,
    )
    heights = np.diff(levels)
    sigma = 1 / (1 + np.exp(-temperature * (beta * x[:, None] - thresholds)))
    value = alpha * ((heights * sigma).sum(-1) + levels[0])
    derivatives = sigma * (1 - sigma)
    steepness = (heights * derivatives).sum(-1)
    expected = (
        value,
        incoming * alpha * beta * temperature * steepness,
        (incoming * value).sum() / alpha,
        (incoming * alpha * temperature * x * steepness).sum(),
        -alpha * temperature * heights * (incoming[:, None] * derivatives).sum(0),
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
