"""Quantization Networks against the paper's equations, its derivatives against closed forms."""

import numpy as np
import pytest
import tensorflow as tf

from satkeras.formulas.kernels import FIXED, OFF, SOFT
from satkeras.formulas.staircases import soft_staircase
from satkeras.quantizers import (
    MaxWeightQuantizer,
    MovingRangeQuantizer,
    QuantizationNetworksActivationQuantizer,
    QuantizationNetworksWeightQuantizer,
)

LEVELS = {
    1: [-1, 1],
    2: [-1, 0, 1],
    "ternary": [-1, 0, 1],
    "3bit+-2": [-2, -1, 0, 1, 2],
    "3bit+-4": [-4, -2, -1, 0, 1, 2, 4],
    3: range(-3, 4),
    4: range(-7, 8),
    5: range(-15, 16),
}
WEIGHTS = [QuantizationNetworksWeightQuantizer(num_bits) for num_bits in LEVELS]
ACTIVATIONS = [QuantizationNetworksActivationQuantizer(num_bits) for num_bits in range(1, 5)]
BOTH = pytest.mark.parametrize("quantizer", WEIGHTS + ACTIVATIONS, ids=lambda q: f"{type(q).__name__[20]}{q.num_bits}")


def values_for(quantizer, shape=(40, 50)):
    values = np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)
    return values if quantizer in WEIGHTS else np.abs(values)


@pytest.fixture
def built(variables_of):
    """A function for the variables of a quantizer, initialized for a tensor."""

    def built(quantizer, values):
        variables = variables_of(quantizer)
        quantizer.calibrate(values, variables)
        return variables

    return built


def numbers(variables):
    return tuple(variables[name].numpy().astype(np.float64) for name in ("alpha", "beta", "thresholds"))


def staircase(x, alpha, beta, thresholds, levels):
    """The paper's eq. 5 and 12: `alpha (sum_i s_i A(beta x - b_i) - o)`."""
    heights = np.diff(levels)
    offset = -levels[0]
    return alpha * ((heights * (beta * x[..., None] - thresholds >= 0)).sum(-1) - offset)


def sigmoids(x, alpha, beta, thresholds, levels, temperature):
    """The paper's eq. 7."""
    sigma = 1 / (1 + np.exp(-temperature * (beta * x[..., None] - thresholds)))
    return alpha * ((np.diff(levels) * sigma).sum(-1) + levels[0])


def test_the_levels_are_the_papers():
    for quantizer, levels in zip(WEIGHTS, LEVELS.values(), strict=True):
        assert quantizer.level_set == tuple(levels)
        assert quantizer.levels == (min(levels), max(levels))
    assert [quantizer.level_set for quantizer in ACTIVATIONS] == [tuple(range(2**k)) for k in range(1, 5)]
    assert [quantizer.require_rounding() for quantizer in WEIGHTS] == [1, 2, 2, 3, 3, 3, 4, 5]


@BOTH
def test_initial_values_are_the_papers(quantizer, built):
    values = values_for(quantizer)
    alpha, beta, thresholds = numbers(built(quantizer, values))
    assert beta == pytest.approx(5 / 4 * quantizer.levels[1] / np.abs(values).max(), rel=1e-6)
    levels = np.array(quantizer.level_set)[(beta * values.ravel()[:, None] >= thresholds).sum(1)]
    # The closed form of the least squares fit.
    assert alpha == pytest.approx((values.ravel() * levels).sum() / (levels**2).sum(), rel=1e-4)
    np.testing.assert_allclose(thresholds, quantizer.thresholds_of(beta * values), rtol=1e-5)
    assert len(thresholds) == len(quantizer.level_set) - 1


@BOTH
def test_inference_computes_a_staircase_on_the_grid(quantizer, built, integers_on_grid):
    values = values_for(quantizer)
    variables = built(quantizer, values)
    alpha, beta, thresholds = numbers(variables)
    values = values[np.abs(beta * values[..., None] - thresholds).min(-1) > 1e-4]
    found = quantizer(tf.constant(values), False, variables).numpy()
    np.testing.assert_allclose(found, staircase(values, alpha, beta, thresholds, quantizer.level_set), rtol=1e-6)
    assert set(integers_on_grid(quantizer, values, variables)) == set(quantizer.level_set)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("temperature", [1.0, 20.0])
@BOTH
def test_training_computes_sigmoids(quantizer, temperature, built):
    values = values_for(quantizer)
    variables = built(quantizer, values)
    variables["temperature"].assign(temperature)
    expected = sigmoids(values, *numbers(variables), quantizer.level_set, temperature)
    found = quantizer(tf.constant(values), True, variables)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * quantizer.levels[1] * numbers(variables)[0])


def test_without_a_callback_the_temperature_is_10(built):
    quantizer = QuantizationNetworksWeightQuantizer("ternary")
    values = values_for(WEIGHTS[2])
    variables = built(quantizer, values)
    expected = sigmoids(values, *numbers(variables), (-1, 0, 1), 10.0)
    np.testing.assert_allclose(quantizer(tf.constant(values), True, variables), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("training", [False, True])
def test_graphs_and_xla_compute_the_same(training, jit_compile, built):
    quantizer = QuantizationNetworksActivationQuantizer(2)
    x = tf.constant(values_for(quantizer))
    variables = built(quantizer, x.numpy())

    def function(x):
        return quantizer(x, training, variables)

    compiled = tf.function(function, jit_compile=jit_compile)(x)
    np.testing.assert_allclose(compiled, function(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cls", [QuantizationNetworksWeightQuantizer, QuantizationNetworksActivationQuantizer])
def test_learned_scales_take_their_gradient_divided_by_the_root_of_the_count(cls, built, value_and_gradients):
    quantizer = cls(3, learn_thresholds=True)
    x = values_for(quantizer)
    variables = built(quantizer, x)
    assert {name for name, variable in variables.items() if variable.trainable} == {"alpha", "beta", "thresholds"}
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(quantizer(tf.constant(x), True, variables))
    names = "alpha", "beta", "thresholds"
    found = tape.gradient(total, [variables[name] for name in names])
    tensors = [variables[name].numpy() for name in names]
    _, _, *plain = value_and_gradients(
        lambda *tensors: soft_staircase(*tensors, tf.constant(10.0), quantizer.level_set), x, *tensors
    )
    count = x.size if cls is QuantizationNetworksWeightQuantizer else x[0].size
    for one, other in zip(found, plain, strict=True):
        np.testing.assert_allclose(one, other / np.sqrt(count * quantizer.levels[1]), rtol=1e-4, atol=1e-5)


def test_thresholds_do_not_learn_by_default(variables_of):
    variables = variables_of(QuantizationNetworksWeightQuantizer("ternary"))
    assert {name for name, variable in variables.items() if variable.trainable} == {"alpha", "beta"}


def test_phases(built):
    quantizer = QuantizationNetworksActivationQuantizer(2)
    x = tf.constant(values_for(quantizer))
    variables = built(quantizer, x.numpy())
    soft, hard = (quantizer(x, training, variables).numpy() for training in (True, False))
    expected = {OFF: (x, x), SOFT: (soft, hard), FIXED: (hard, hard)}
    for phase, results in expected.items():
        variables["phase"].assign(phase)
        for training, result in zip((True, False), results, strict=True):
            np.testing.assert_array_equal(quantizer(x, training, variables), result)


@pytest.mark.parametrize(("phase", "dx"), [(OFF, 1.0), (FIXED, 0.0)], ids=["off", "fixed"])
def test_only_the_soft_phase_learns(phase, dx, built):
    quantizer = QuantizationNetworksActivationQuantizer(2, learn_thresholds=True)
    x = tf.constant(values_for(quantizer))
    variables = built(quantizer, x.numpy())
    variables["phase"].assign(phase)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(quantizer(x, True, variables))
    found, *learned = tape.gradient(total, [x, *(variables[name] for name in ("alpha", "beta", "thresholds"))])
    np.testing.assert_array_equal(found, np.full(x.shape, dx))
    assert not any(np.any(gradient) for gradient in learned)


def test_a_scale_driven_below_zero_comes_back(built, integers_on_grid):
    quantizer = QuantizationNetworksWeightQuantizer("ternary")
    x = values_for(WEIGHTS[2])
    variables = built(quantizer, x)
    for name in ("alpha", "beta"):
        variables[name].assign(-0.5)
    assert np.isfinite(quantizer(tf.constant(x), True, variables)).all()
    integers_on_grid(quantizer, x, variables)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(quantizer(tf.constant(x), True, variables) * np.sign(x))
    assert tape.gradient(loss, variables["alpha"]) != 0


@pytest.mark.parametrize("x", [np.zeros((3, 4)), np.full((3, 4), 0.3), np.ones((1, 1)), [[1e30, -1e30, 0.0, 1e-30]]])
@pytest.mark.parametrize("num_bits", [1, "ternary", "3bit+-4", 5])
def test_degenerate_weights_stay_on_the_grid(num_bits, x, built, integers_on_grid):
    quantizer = QuantizationNetworksWeightQuantizer(num_bits)
    x = np.asarray(x, np.float32)
    variables = built(quantizer, x)
    assert np.isfinite(quantizer(tf.constant(x), True, variables)).all()
    assert set(integers_on_grid(quantizer, x, variables).ravel()) <= set(quantizer.level_set)


def test_without_thresholds_nothing_is_computed(variables_of):
    quantizer = QuantizationNetworksActivationQuantizer(2)
    variables = variables_of(quantizer)
    for training in (True, False):
        with pytest.raises(tf.errors.InvalidArgumentError, match="call satkeras.set_thresholds"):
            quantizer(tf.ones((2, 3)), training, variables)
    with pytest.raises(ValueError, match="thresholds are still unknown: call satkeras.set_thresholds"):
        quantizer.quant_params(variables)
    variables["beta"].assign(1.0)
    variables["phase"].assign(OFF)
    with pytest.raises(ValueError, match="switched off: call satkeras.set_phase"):
        quantizer.quant_params(variables)


def test_8_bits_and_signed_tensors_are_plain():
    weights, activations = QuantizationNetworksWeightQuantizer(8), QuantizationNetworksActivationQuantizer(8)
    assert weights.specialized(depthwise=True) == MaxWeightQuantizer(8, depthwise=True)
    assert activations.specialized(signed=False) == MovingRangeQuantizer(8)
    low = QuantizationNetworksActivationQuantizer(2)
    assert low.specialized(signed=True) == MovingRangeQuantizer(8, signed=True)
    assert low.specialized(signed=False) == low
    with pytest.raises(ValueError, match="no levels at 8 bits"):
        _ = weights.levels


def test_full_precision_weights_pass(variables_of):
    quantizer = QuantizationNetworksWeightQuantizer(None)
    x = values_for(quantizer)
    assert variables_of(quantizer) == {}
    np.testing.assert_array_equal(quantizer(tf.constant(x), True, {}), x)
    with pytest.raises(ValueError, match="num_bits is None"):
        quantizer.quant_params({})


@pytest.mark.parametrize("quantizer", [*WEIGHTS, *ACTIVATIONS], ids=str)
def test_config_round_trip_of_every_width(quantizer, round_trip):
    assert round_trip(quantizer)["config"]["num_bits"] == quantizer.num_bits


@pytest.mark.parametrize(
    ("cls", "num_bits", "error", "message"),
    [
        (QuantizationNetworksWeightQuantizer, 6, ValueError, r"1, 2, 3, 4, 5, 8, 'ternary'.*num_bits=6\."),
        (QuantizationNetworksWeightQuantizer, "3bit", ValueError, r"'3bit\+-4'\) or None. Received: num_bits='3bit'"),
        (QuantizationNetworksWeightQuantizer, 2.0, TypeError, "num_bits=2.0"),
        (QuantizationNetworksActivationQuantizer, 5, ValueError, r"\(1, 2, 3, 4, 8\).*num_bits=5.*overrides="),
        (QuantizationNetworksActivationQuantizer, True, TypeError, "num_bits=True"),
        (QuantizationNetworksActivationQuantizer, "ternary", ValueError, "num_bits='ternary'"),
    ],
)
def test_widths_that_are_refused(cls, num_bits, error, message):
    with pytest.raises(error, match=message):
        cls(num_bits)


def test_gradient_temperature_must_be_positive():
    for value in (0, -1.0, np.inf):
        with pytest.raises(ValueError, match="gradient_temperature must be positive"):
            QuantizationNetworksWeightQuantizer(gradient_temperature=value)


def test_zero_edge_places_the_thresholds_next_to_zero(built):
    values = np.random.default_rng(0).normal(0, 0.1, 20_000).astype(np.float32)
    for edge in (0.05, 0.2):
        variables = built(QuantizationNetworksWeightQuantizer("ternary", zero_edge=edge), values)
        np.testing.assert_allclose(variables["thresholds"], [-edge, edge], rtol=1e-6)
    variables = built(QuantizationNetworksWeightQuantizer("ternary", zero_edge=None), values)
    # The best three-level thresholds of a normal distribution (Lloyd-Max).
    best = 0.612 * np.std(values) * float(variables["beta"])
    np.testing.assert_allclose(variables["thresholds"], [-best, best], rtol=0.05)


def test_zero_edge_must_be_positive():
    for value in (0.0, -0.05, float("nan")):
        with pytest.raises(ValueError, match="zero_edge must be positive"):
            QuantizationNetworksWeightQuantizer(zero_edge=value)
