"""Activations against NumPy definitions and closed forms: the formulas, and the kernels of the same names."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from satkeras.formulas import activations, kernels
from satkeras.quantizers.quant_params import activation_levels

BITS = range(2, 9)
EITHER_FORM = pytest.mark.parametrize("form", [activations, kernels], ids=["formula", "kernel"])
EVERY_GRID = pytest.mark.parametrize(
    ("qmin", "qmax"), [activation_levels(bits, signed) for signed in (False, True) for bits in BITS], ids=str
)
CALIBRATED = pytest.mark.parametrize("calibrated", [False, True], ids=["pact", "calibrated"])
finite = st.floats(-100, 100, width=32)


@pytest.fixture
def pact_and_gradients(value_and_gradients):
    """A function for the value of `pact` or `calibrated_pact` and the gradients of x and alpha."""

    def pact_and_gradients(form, calibrated, x, alpha, levels, incoming):
        pact = form.calibrated_pact if calibrated else form.pact
        return value_and_gradients(lambda x, alpha: pact(x, alpha, levels), x, alpha, incoming=incoming)

    return pact_and_gradients


def slack_of(form, calibrated, levels, incoming):
    """What `kernels.calibrated_pact` documents for alpha's gradient; the formula has no such slack."""
    kept_in_16_bits = form is kernels and calibrated
    return kept_in_16_bits * (1 - levels[0] / levels[1]) * float(np.abs(incoming).sum()) / 130_000


@EITHER_FORM
@EVERY_GRID
def test_pact_clips_and_rounds(form, qmin, qmax):
    step = 2.7 / qmax
    x = np.random.default_rng(0).normal(0, 3, 2000)
    away_from_ties = np.abs(x / step % 1 - 0.5) > 1e-3
    x = x[away_from_ties]
    for function in (form.pact, form.calibrated_pact, form.clip_and_round):
        value = function(tf.constant(x, tf.float32), tf.constant(2.7), (qmin, qmax)).numpy()
        np.testing.assert_allclose(value / step, np.clip(np.rint(x / step), qmin, qmax), atol=1e-3)


@EITHER_FORM
@CALIBRATED
@EVERY_GRID
def test_pact_gradients(form, qmin, qmax, calibrated, pact_and_gradients):
    alpha = 2.7
    low = alpha * qmin / qmax
    rng = np.random.default_rng(qmax)
    x = rng.uniform(low - 1, alpha + 1, 500).astype(np.float32)
    g = rng.normal(size=500).astype(np.float32)
    y, dx, dalpha = pact_and_gradients(form, calibrated, x, alpha, (qmin, qmax), g)
    inside = (x > low) & (x < alpha)
    np.testing.assert_array_equal(dx, np.where(inside, g, 0))
    expected = g[x > alpha].sum() + qmin / qmax * g[x < low].sum()
    if calibrated:
        expected += (g * (y - x))[inside].sum() / alpha
    assert dalpha == pytest.approx(expected, rel=1e-4, abs=1e-4 + slack_of(form, calibrated, (qmin, qmax), g))


@EITHER_FORM
@CALIBRATED
@EVERY_GRID
def test_pact_at_edges_and_ties(form, qmin, qmax, calibrated, pact_and_gradients):
    # Steps of 1/4, so that edges and ties are exact in float32.
    alpha, step = qmax / 4, 1 / 4
    edges = [qmin * step, alpha]
    value, dx, dalpha = pact_and_gradients(form, calibrated, edges, alpha, (qmin, qmax), [1.0, 3.0])
    np.testing.assert_allclose(value, edges, rtol=1e-6)
    np.testing.assert_array_equal(dx, [1, 3])
    assert dalpha == pytest.approx(0, abs=1e-5 + slack_of(form, calibrated, (qmin, qmax), 4.0))

    ties = np.array([(integer + 0.5) * step for integer in range(qmin, qmax)][:3])
    value, dx, dalpha = pact_and_gradients(form, calibrated, ties, alpha, (qmin, qmax), 2.0)
    np.testing.assert_allclose(np.abs(value - ties), step / 2, rtol=1e-6)
    np.testing.assert_array_equal(dx, 2)
    expected = 2 * (value - ties).sum() / alpha if calibrated else 0
    assert dalpha == pytest.approx(expected, abs=1e-6 + slack_of(form, calibrated, (qmin, qmax), 2.0 * len(ties)))


@EITHER_FORM
@given(x=finite, alpha=st.floats(2**-10, 2**10, width=32), num_bits=st.sampled_from(BITS), signed=st.booleans())
def test_pact_result_is_the_nearest_level(form, x, alpha, num_bits, signed):
    qmin, qmax = activation_levels(num_bits, signed)
    step = alpha / qmax
    value = float(form.pact(tf.constant(x), tf.constant(alpha), (qmin, qmax)))
    integer = value / step
    assert integer == pytest.approx(round(integer), abs=1e-3)
    assert qmin <= round(integer) <= qmax
    assert abs(value - np.clip(x, qmin * step, alpha)) <= step * 0.501


@EITHER_FORM
@pytest.mark.parametrize("levels", [(0, 15), (-7, 7)], ids=str)
def test_the_calibrated_gradient_is_autodiff_of_the_product(form, levels, pact_and_gradients, value_and_gradients):
    qmin, qmax = levels
    x = np.random.default_rng(0).uniform(-6, 6, 200)

    def product(x, alpha):
        scaled = tf.clip_by_value(x / alpha, qmin / qmax, 1.0) * qmax
        return alpha * (scaled + tf.stop_gradient(tf.round(scaled) - scaled)) / qmax

    expected = value_and_gradients(product, x, 3.1)
    found = pact_and_gradients(form, True, x, 3.1, levels, 1.0)
    slack = slack_of(form, True, levels, np.ones(200))
    for one, other, own in zip(found, expected, (0, 0, slack), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 + own)


@EITHER_FORM
def test_a_fixed_clip_value_has_no_gradient_and_stops_that_of_what_it_clips(form, value_and_gradients):
    x = np.float32([-1.1, -1.0, 0.3, 1.0, 1.1])
    _, dx, dclip = value_and_gradients(lambda x, clip: form.clip_and_round(x, clip, (-7, 7)), x, 1.0, incoming=3.0)
    np.testing.assert_array_equal(dx, [0, 3, 3, 3, 0])
    assert dclip == 0


@EITHER_FORM
def test_round_inside_stops_no_gradient(form, value_and_gradients):
    value, dx, dclip = value_and_gradients(
        lambda x, clip: form.round_inside(x, clip, (0, 3)), [0.0, 0.3, 0.7, 0.75], 0.75, incoming=[1.0, 2.0, 3.0, 4.0]
    )
    np.testing.assert_array_equal(value, [0, 0.25, 0.75, 0.75])
    np.testing.assert_array_equal(dx, [1, 2, 3, 4])
    assert dclip == 0


@EITHER_FORM
@pytest.mark.parametrize(("low", "high"), [(0.0, 255.0), (-1.0, 127 / 128), (-128.0, 127.0)])
def test_fake_quantize_is_the_nearest_of_the_levels(form, low, high, value_and_gradients):
    x = np.random.default_rng(0).uniform(low - 1, high + 1, 2000).astype(np.float32)
    levels = np.linspace(low, high, 256)
    value, gradient = value_and_gradients(lambda x: form.fake_quantize(x, low, high, 255), x)
    nearest = levels[np.abs(levels - x[:, None]).argmin(1)]
    np.testing.assert_allclose(value, nearest, atol=1e-6 * (high - low))
    np.testing.assert_array_equal(gradient, (low <= x) & (x <= high))


@pytest.mark.thinned(3)
@EITHER_FORM
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("levels", [(0, 15), (-7, 7)], ids=str)
@pytest.mark.parametrize("name", ["pact", "calibrated_pact", "clip_and_round"])
def test_graphs_and_xla_compute_the_same(form, name, levels, jit_compile, value_and_gradients):
    x = np.random.default_rng(1).normal(size=(4, 9)).astype(np.float32)

    def function(x):
        return getattr(form, name)(x, tf.constant(1.7), levels)

    eager = value_and_gradients(function, x)
    compiled = value_and_gradients(tf.function(function, jit_compile=jit_compile), x)
    for one, other in zip(compiled, eager, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
