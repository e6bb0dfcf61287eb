"""The formulas against NumPy definitions, and their gradients against closed forms."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from satkeras.formulas import quantization as quant_ops
from satkeras.quantizers.quant_params import activation_levels

BITS = range(2, 9)
finite = st.floats(-100, 100, width=32)


def test_round_ste_rounds_ties_to_even_and_passes_the_gradient(value_and_gradients):
    value, gradient = value_and_gradients(quant_ops.round_ste, [-2.5, -1.5, -0.4, 0.5, 1.5, 2.6])
    np.testing.assert_array_equal(value, [-2, -2, 0, 0, 2, 3])
    np.testing.assert_array_equal(gradient, 1)


def test_clamp_weights_is_tanh_over_its_maximum():
    weights = np.random.default_rng(0).normal(size=(3, 3, 4, 5))
    bounded = np.tanh(weights)
    np.testing.assert_allclose(
        quant_ops.clamp_weights(tf.constant(weights, tf.float32)), bounded / np.abs(bounded).max(), rtol=1e-6
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_clamp_weights_is_differentiated_through_the_maximum(sign, value_and_gradients):
    weights = sign * np.array([0.3, -0.7, 1.2, 0.1])
    incoming = np.array([1.0, 2.0, -3.0, 0.5])
    bounded = np.tanh(weights)
    slope = 1 - bounded**2
    expected = incoming * slope / abs(bounded[2])
    # y_i = t_i / |t_2|, so t_2 also takes the gradient of every y through the denominator.
    expected[2] -= sign * slope[2] * (incoming @ bounded) / bounded[2] ** 2
    _, gradient = value_and_gradients(quant_ops.clamp_weights, weights, incoming=incoming)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([0.0, 0.0], [0.0, 0.0]),
        ([0.3, 0.3], [1.0, 1.0]),
        ([-1e30, 1e30, 0], [-1.0, 1.0, 0.0]),
        ([1e-30, 0.0], [1.0, 0.0]),
    ],
    ids=["zeros", "constant", "huge", "tiny"],
)
def test_clamp_weights_of_degenerate_tensors(weights, expected, value_and_gradients):
    value, gradient = value_and_gradients(quant_ops.clamp_weights, weights)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("num_bits", BITS)
def test_odd_grid_has_every_odd_integer_and_no_other(num_bits, value_and_gradients):
    steps = 2**num_bits - 1
    x = np.linspace(-1, 1, 20 * steps)
    value, gradient = value_and_gradients(lambda x: quant_ops.odd_grid_ste(x, num_bits), x)
    integers = value * steps
    np.testing.assert_allclose(integers, np.rint(integers), atol=1e-4)
    assert set(np.rint(integers).astype(int)) == set(range(-steps, steps + 1, 2))
    assert np.abs(value - x).max() <= (1 + 1e-4) / steps
    np.testing.assert_allclose(gradient, 1, rtol=1e-6)


@pytest.mark.parametrize("num_bits", BITS)
def test_symmetric_grid_has_every_integer(num_bits, value_and_gradients):
    steps = 2 ** (num_bits - 1) - 1
    x = np.linspace(-1, 1, 20 * steps + 1)
    value, gradient = value_and_gradients(lambda x: quant_ops.symmetric_grid_ste(x, num_bits), x)
    assert set(np.rint(value * steps).astype(int)) == set(range(-steps, steps + 1))
    assert np.abs(value - x).max() <= (0.5 + 1e-4) / steps
    np.testing.assert_allclose(gradient, 1, rtol=1e-6)


@pytest.mark.parametrize("shape", [(7,), (5, 6), (3, 3, 2, 4)])
def test_rescale_factor_uses_the_unbiased_variance_and_is_constant(shape, value_and_gradients):
    values = np.random.default_rng(0).normal(1.0, 2.0, shape)
    factor, gradient = value_and_gradients(lambda x: quant_ops.rescale_factor(x, 0.25), values)
    assert factor == pytest.approx(0.25 / np.std(values, ddof=1), rel=1e-5)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize(
    "values",
    [np.zeros(9), np.full(1001, 0.1), np.full((3, 3), -1.0), np.ones(1)],
    ids=["zeros", "tenths", "ones", "one"],
)
def test_rescale_factor_takes_a_tensor_without_variance_as_variance_1(values):
    assert float(quant_ops.rescale_factor(tf.constant(values, tf.float32), 0.25)) == pytest.approx(0.25)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("num_bits", BITS)
def test_pact_clips_and_rounds(num_bits, signed):
    qmin, qmax = activation_levels(num_bits, signed)
    step = 2.7 / qmax
    x = np.random.default_rng(0).normal(0, 3, 2000)
    away_from_ties = np.abs(x / step % 1 - 0.5) > 1e-3
    x = x[away_from_ties]
    value = quant_ops.pact(tf.constant(x, tf.float32), tf.constant(2.7), (qmin, qmax)).numpy()
    np.testing.assert_allclose(value / step, np.clip(np.rint(x / step), qmin, qmax), atol=1e-3)


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("num_bits", BITS)
def test_pact_gradients(num_bits, signed, calibrated, value_and_gradients):
    qmin, qmax = activation_levels(num_bits, signed)
    alpha = 2.7
    low = alpha * qmin / qmax
    rng = np.random.default_rng(num_bits)
    x = rng.uniform(low - 1, alpha + 1, 500).astype(np.float32)
    g = rng.normal(size=500).astype(np.float32)
    y, dx, dalpha = value_and_gradients(
        lambda x, alpha: quant_ops.pact(x, alpha, (qmin, qmax), calibrated), x, alpha, incoming=g
    )
    inside = (x > low) & (x < alpha)
    np.testing.assert_array_equal(dx, np.where(inside, g, 0))
    expected = g[x > alpha].sum() + qmin / qmax * g[x < low].sum()
    if calibrated:
        expected += (g * (y - x))[inside].sum() / alpha
    kept_in_16_bits = (1 - qmin / qmax) / 130_000 * float(np.abs(g).sum()) if calibrated else 0
    assert dalpha == pytest.approx(expected, rel=1e-4, abs=1e-4 + kept_in_16_bits)


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("num_bits", BITS)
def test_pact_at_edges_and_ties(num_bits, signed, calibrated, value_and_gradients):
    qmin, qmax = activation_levels(num_bits, signed)
    # Steps of 1/4, so that edges and ties are exact in float32.
    alpha, step = qmax / 4, 1 / 4
    edges = [qmin * step, alpha]
    value, dx, dalpha = value_and_gradients(
        lambda x, alpha: quant_ops.pact(x, alpha, (qmin, qmax), calibrated), edges, alpha, incoming=[1.0, 3.0]
    )
    np.testing.assert_allclose(value, edges, rtol=1e-6)
    np.testing.assert_array_equal(dx, [1, 3])
    kept_in_16_bits = (1 - qmin / qmax) / 130_000 if calibrated else 0  # for each unit of the incoming gradient
    assert dalpha == pytest.approx(0, abs=1e-5 + 4 * kept_in_16_bits)

    ties = [(integer + 0.5) * step for integer in range(qmin, qmax)]
    for tie in ties[:3]:
        value, dx, dalpha = value_and_gradients(
            lambda x, alpha: quant_ops.pact(x, alpha, (qmin, qmax), calibrated), tie, alpha, incoming=2.0
        )
        assert abs(value - tie) == pytest.approx(step / 2)
        assert dx == 2
        expected = 2 * (value - tie) / alpha if calibrated else 0
        assert dalpha == pytest.approx(expected, abs=1e-12 + 2 * kept_in_16_bits)


@given(x=st.lists(finite, min_size=1, max_size=20), clip=st.floats(2**-13, 2**10, width=32), signed=st.booleans())
def test_what_is_kept_in_16_bits_comes_back_on_its_side_of_the_edges(x, clip, signed):
    qmin, qmax = activation_levels(4, signed)
    clip = np.float32(clip)
    low = np.float32(qmin / qmax) * clip
    x = np.array([*x, low, clip, 0, 1.0001 * clip, low - 0.0001 * clip], np.float32)
    near_an_edge = np.abs(x - [[low], [clip]]).min(0) < 1e-6 * clip
    x = x[~near_an_edge | (x == low) | (x == clip)]
    found = quant_ops.keep_in_16_bits(tf.constant(x), tf.constant(clip), (qmin, qmax))(tf.constant(0)).numpy()
    np.testing.assert_array_equal((low <= found) & (found <= clip), (low <= x) & (x <= clip))
    error = np.abs(found - np.clip(x, low, clip)) / (clip - low)
    assert (error <= 1 / np.where((low <= x) & (x <= clip), 130_000, 126_000)).all()


@given(x=finite, alpha=st.floats(2**-10, 2**10, width=32), num_bits=st.sampled_from(BITS), signed=st.booleans())
def test_pact_result_is_the_nearest_level(x, alpha, num_bits, signed):
    qmin, qmax = activation_levels(num_bits, signed)
    step = alpha / qmax
    value = float(quant_ops.pact(tf.constant(x), tf.constant(alpha), (qmin, qmax)))
    integer = value / step
    assert integer == pytest.approx(round(integer), abs=1e-3)
    assert qmin <= round(integer) <= qmax
    assert abs(value - np.clip(x, qmin * step, alpha)) <= step * 0.501


@pytest.mark.parametrize("signed", [False, True])
def test_pact_is_calibrated_as_autodiff_of_the_formula(signed, value_and_gradients):
    """The calibrated gradient is what autodiff gives for alpha * STE_round(n clip(x / alpha)) / n."""
    qmin, qmax = activation_levels(4, signed)
    x = np.random.default_rng(0).uniform(-6, 6, 200)

    def formula(x, alpha):
        return alpha * quant_ops.round_ste(tf.clip_by_value(x / alpha, qmin / qmax, 1.0) * qmax) / qmax

    expected = value_and_gradients(formula, x, 3.1)
    found = value_and_gradients(lambda x, alpha: quant_ops.pact(x, alpha, (qmin, qmax)), x, 3.1)
    kept_in_16_bits = 200 * (1 - qmin / qmax) / 130_000  # in the gradient of alpha, which reads x
    for one, other, slack in zip(found, expected, (0, 0, kept_in_16_bits), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 + slack)


def test_alphas_gradient_where_there_is_a_gpu(monkeypatch, value_and_gradients):
    x = np.random.default_rng(0).uniform(-6, 6, 200)
    found = []
    for gpus in ([], ["GPU:0"]):
        monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind, gpus=gpus: gpus)
        found.append(value_and_gradients(lambda x, alpha: quant_ops.pact(x, alpha, (0, 15)), x, 3.1))
    for one, other, slack in zip(*found, (0, 0, 200 / 130_000), strict=True):  # the CPU's x was kept in 16 bits
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=slack)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: quant_ops.odd_grid_ste(quant_ops.clamp_weights(x), 4),
        lambda x: quant_ops.symmetric_grid_ste(quant_ops.clamp_weights(x), 8),
        lambda x: x * quant_ops.rescale_factor(x, 0.1),
        lambda x: quant_ops.pact(x, tf.constant(1.7), (-7, 7)),
        lambda x: quant_ops.clip_and_round(x, tf.constant(1.7), (0, 15)),
    ],
    ids=["odd", "symmetric", "rescale", "pact", "clip_and_round"],
)
def test_graphs_and_xla_compute_the_same(function, jit_compile, value_and_gradients):
    x = np.random.default_rng(1).normal(size=(4, 9)).astype(np.float32)
    eager = value_and_gradients(function, x)
    compiled = value_and_gradients(tf.function(function, jit_compile=jit_compile), x)
    for one, other in zip(compiled, eager, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("top", [7, 15, 31, 127, 255])
def test_a_step_is_the_same_number_in_graphs(top):
    largest = tf.Variable(np.random.default_rng(top).uniform(0.1, 10, 1000).astype(np.float32))

    def in_graph(step):
        # In a graph of fewer operators nothing is optimized.
        return tf.function(lambda: tf.stack([step(largest), tf.sqrt(largest), tf.exp(largest)])[0])().numpy()

    expected = largest.numpy() / np.float32(top)
    assert np.any(in_graph(lambda value: value / top) != expected)
    np.testing.assert_array_equal(in_graph(lambda value: quant_ops.step_size(value, (0, top))), expected)
    np.testing.assert_array_equal(quant_ops.step_size(largest, (0, top)), expected)


@pytest.mark.parametrize("count", [30, 270, 2304])
def test_a_standard_deviation_is_the_same_number_in_graphs(count):
    values = tf.Variable(np.random.default_rng(count).normal(0, 0.1, (50, count)).astype(np.float32))

    def deviations():
        return tf.stack([quant_ops.unbiased_stddev(row) for row in tf.unstack(values)])

    np.testing.assert_array_equal(tf.function(deviations)(), deviations())
