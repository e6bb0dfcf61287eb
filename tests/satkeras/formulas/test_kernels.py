"""What training runs against the formulas to read: bit for bit, but where the kernels' docstrings say otherwise."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from satkeras.formulas import activations, kernels, staircases
from satkeras.quantizers.quant_params import activation_levels

finite = st.floats(-100, 100, width=32)
EVERY_GRID = pytest.mark.parametrize(
    "levels", [activation_levels(bits, signed) for signed in (False, True) for bits in range(2, 9)], ids=str
)
CLIPPING = ("clip_and_round", "round_inside", "pact", "calibrated_pact")
STAIRCASES = pytest.mark.parametrize("levels", [(-1, 1), (-4, -2, -1, 0, 1, 2, 4), (0, 1, 2, 3)], ids=str)


def values_around(levels, clip, rng):
    """Values on both sides of a range and of every tie in it, none within float32 rounding of the range's ends."""
    clip = np.float32(clip)
    low = np.float32(levels[0] / levels[1]) * clip
    ties = (np.arange(levels[0] - 1, levels[1] + 1) + np.float32(0.5)) * (clip / np.float32(levels[1]))
    around_ties = [np.nextafter(ties, np.float32(side)) for side in (-np.inf, np.inf)]
    x = np.concatenate([rng.uniform(-1.2, 1.2, 2000) * clip, ties, *around_ties, [0.0, -0.0, 1e30, -1e30]])
    x = x.astype(np.float32)
    return x[(np.abs(x - low) > 1e-6 * clip) & (np.abs(x - clip) > 1e-6 * clip)]


@pytest.fixture
def both_forms(value_and_gradients):
    """A function for value and gradients of x and clip value by the formula and by the kernel of a name."""

    def both_forms(name, x, clip, levels, incoming):
        functions = getattr(activations, name), getattr(kernels, name)
        return [
            value_and_gradients(lambda x, clip, f=f: f(x, clip, levels), x, clip, incoming=incoming) for f in functions
        ]

    return both_forms


@pytest.mark.parametrize("name", CLIPPING)
@EVERY_GRID
def test_values_and_the_gradient_of_x_agree_bit_for_bit(name, levels, both_forms):
    rng = np.random.default_rng(levels[1])
    for clip in (0.001, 2.7, 3.1, 900.0):
        x = values_around(levels, clip, rng)
        formula, kernel = both_forms(name, x, clip, levels, rng.normal(size=x.shape))
        np.testing.assert_array_equal(kernel[0], formula[0])
        np.testing.assert_array_equal(kernel[1], formula[1])


@pytest.mark.parametrize("name", ["clip_and_round", "round_inside", "pact"])
@EVERY_GRID
def test_the_gradient_of_the_clip_value_agrees_bit_for_bit_where_sums_are_exact(name, levels, both_forms):
    rng = np.random.default_rng(levels[1])
    x = values_around(levels, 2.7, rng)
    incoming = rng.integers(1, 5, x.shape)  # whole numbers add up to the same in any order
    formula, kernel = both_forms(name, x, 2.7, levels, incoming)
    np.testing.assert_array_equal(kernel[2], formula[2])
    assert (formula[2] != 0) == (name == "pact")


@pytest.mark.parametrize("gpus", [[], ["GPU:0"]], ids=["in 16 bits", "whole"])
@EVERY_GRID
def test_the_calibrated_gradient_agrees_within_what_16_bits_and_sums_explain(levels, gpus, both_forms, monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: gpus)  # on GPUs x is kept as it is
    rng = np.random.default_rng(levels[1])
    x = np.clip(values_around(levels, 2.7, rng), -4, 4)
    incoming = rng.normal(size=x.shape)
    formula, kernel = both_forms("calibrated_pact", x, 2.7, levels, incoming)
    np.testing.assert_array_equal(kernel[1], formula[1])
    total = np.abs(incoming).sum()
    kept_in_16_bits = 0 if gpus else (1 - levels[0] / levels[1]) / 130_000
    assert abs(kernel[2] - formula[2]) <= total * (1e-6 + kept_in_16_bits)


@pytest.mark.parametrize(("low", "high"), [(0.0, 255.0), (0.0, 1.0), (-1.0, 127 / 128), (-128.0, 127.0)])
def test_fake_quantize_agrees_bit_for_bit(low, high, value_and_gradients):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(low - 1, high + 1, 3000), np.linspace(low, high, 511)[1:-1]])
    incoming = rng.normal(size=x.shape)
    formula, kernel = (
        value_and_gradients(lambda x, f=form.fake_quantize: f(x, low, high, 255), x, incoming=incoming)
        for form in (activations, kernels)
    )
    for one, other in zip(kernel, formula, strict=True):
        np.testing.assert_array_equal(one, other)


@given(x=st.lists(finite, min_size=1, max_size=20), clip=st.floats(2**-13, 2**10, width=32), signed=st.booleans())
def test_what_is_kept_in_16_bits_comes_back_on_its_side_of_the_edges(x, clip, signed):
    qmin, qmax = activation_levels(4, signed)
    clip = np.float32(clip)
    low = np.float32(qmin / qmax) * clip
    x = np.array([*x, low, clip, 0, 1.0001 * clip, low - 0.0001 * clip], np.float32)
    near_an_edge = np.abs(x - [[low], [clip]]).min(0) < 1e-6 * clip
    x = x[~near_an_edge | (x == low) | (x == clip)]
    found = kernels.keep_in_16_bits(tf.constant(x), tf.constant(clip), (qmin, qmax))(tf.constant(0)).numpy()
    np.testing.assert_array_equal((low <= found) & (found <= clip), (low <= x) & (x <= clip))
    error = np.abs(found - np.clip(x, low, clip)) / (clip - low)
    assert (error <= 1 / np.where((low <= x) & (x <= clip), 130_000, 126_000)).all()


@pytest.mark.parametrize("gpus", [[], ["GPU:0"]], ids=["matrix product", "sum"])
def test_dot_is_the_sum_of_products(gpus, monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: gpus)
    a, b = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    found = kernels.dot(tf.constant(a), tf.constant(b))
    assert found.shape == ()
    assert float(found) == pytest.approx(float((a * b).sum(dtype=np.float64)), rel=1e-5)


def staircase_of(levels, rng):
    """x, alpha, beta and thresholds, some of them closer together than others."""
    thresholds = np.sort(rng.normal(0, 1, len(levels) - 1))
    return rng.normal(0, 1, 2001), 0.3, 1.7, thresholds


@pytest.mark.thinned(3)
@pytest.mark.parametrize("temperature", [3.0, 2000.0])
@STAIRCASES
def test_sigmoids_agree_bit_for_bit_under_one_compiler(levels, temperature, value_and_gradients):
    rng = np.random.default_rng(0)
    arguments, incoming = staircase_of(levels, rng), rng.normal(size=2001)
    compiled = tf.function(staircases.soft_staircase, jit_compile=True)

    def value_and_gradients_of(function):
        return value_and_gradients(
            lambda *tensors: function(*tensors, tf.constant(temperature), levels), *arguments, incoming=incoming
        )

    formula, kernel = value_and_gradients_of(compiled), value_and_gradients_of(kernels.soft_staircase)
    np.testing.assert_array_equal(kernel[0], formula[0])
    # sigma (1 - sigma) is a product of two sigmoids here, and every gradient a sum in another order.
    for one, other in zip(kernel[1:], formula[1:], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(other).max())


@STAIRCASES
def test_a_fixed_staircase_agrees_bit_for_bit(levels):
    arguments = [tf.constant(values, tf.float32) for values in staircase_of(levels, np.random.default_rng(1))]
    found = kernels.soft_staircase(*arguments, tf.constant(10.0), levels, phase=kernels.FIXED)
    np.testing.assert_array_equal(found, staircases.staircase(*arguments, levels))


@pytest.mark.parametrize(("temperature", "limit"), [(30.0, 5.0), (3.0, 5.0)])
def test_a_gradient_temperature_is_that_of_all_gradients_but_alphas(temperature, limit, value_and_gradients):
    levels = (-4, -2, -1, 0, 1, 2, 4)
    rng = np.random.default_rng(2)
    arguments, incoming = staircase_of(levels, rng), rng.normal(size=2001)

    def kernel(temperature, limit=None):
        return value_and_gradients(
            lambda *tensors: kernels.soft_staircase(*tensors, tf.constant(temperature), levels, limit),
            *arguments,
            incoming=incoming,
        )

    value, dx, dalpha, dbeta, dthresholds = kernel(temperature, limit)
    steep, wide = kernel(temperature), kernel(min(temperature, limit))
    for one, other in zip((value, dalpha), (steep[0], steep[2]), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip((dx, dbeta, dthresholds), (wide[1], *wide[3:]), strict=True):
        np.testing.assert_array_equal(one, other)
