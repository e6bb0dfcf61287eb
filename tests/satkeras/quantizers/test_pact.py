"""PACT: its clip, the gradients of both kinds, and the life of alpha."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from satkeras.quantizers import PACTQuantizer
from satkeras.quantizers.quant_params import activation_levels

CASES = [(num_bits, signed) for num_bits in range(2, 9) for signed in (False, True)]
grids = pytest.mark.parametrize(("num_bits", "signed"), CASES)


def paper(x, alpha, num_bits, signed):
    """PACT, eq. 1-2; two-sided: n = 2^(k-1) - 1 steps a side, at 8 bits one more below."""
    if not signed:
        y = 0.5 * (np.abs(x) - np.abs(x - alpha) + alpha)
        steps = 2**num_bits - 1
        return np.rint(y * steps / alpha) * alpha / steps
    n = 2 ** (num_bits - 1) - 1
    return np.clip(np.rint(x * n / alpha), -128 if num_bits == 8 else -n, n) * alpha / n


def off_ties(x, step):
    return x[np.abs(x / step % 1 - 0.5) > 1e-3].astype(np.float32)


@grids
def test_value(num_bits, signed, variables_of):
    alpha = 2.3
    x = off_ties(np.random.default_rng(0).normal(0, 2, 3000), alpha / activation_levels(num_bits, signed)[1])
    quantizer = PACTQuantizer(num_bits, signed, initial_alpha=alpha)
    found = quantizer(tf.constant(x), True, variables_of(quantizer)).numpy()
    np.testing.assert_allclose(found, paper(x, alpha, num_bits, signed), atol=1e-5)


@grids
def test_integers_fill_the_grid(num_bits, signed, variables_of, integers_on_grid):
    quantizer = PACTQuantizer(num_bits, signed, initial_alpha=3.7)
    x = np.linspace(-5, 5, 20001)
    integers = integers_on_grid(quantizer, x, variables_of(quantizer))
    qmin, qmax = activation_levels(num_bits, signed)
    assert set(integers) == set(range(qmin, qmax + 1))
    assert integers[np.abs(x).argmin()] == 0


@pytest.mark.parametrize("calibrated", [False, True])
@grids
def test_gradients_of_input_and_alpha(num_bits, signed, calibrated, variables_of):
    quantizer = PACTQuantizer(num_bits, signed, calibrated, initial_alpha=2.0)
    variables = variables_of(quantizer)
    rng = np.random.default_rng(2)
    x, g = rng.normal(0, 2, 400).astype(np.float32), rng.normal(size=400).astype(np.float32)
    watched = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(watched)
        y = quantizer(watched, True, variables)
        total = tf.reduce_sum(y * g)
    dx, dalpha = tape.gradient(total, [watched, variables["alpha"]])

    qmin, qmax = activation_levels(num_bits, signed)
    low = 2.0 * qmin / qmax
    inside = (x > low) & (x < 2)
    np.testing.assert_array_equal(dx, np.where(inside, g, 0))
    expected = g[x > 2].sum() + qmin / qmax * g[x < low].sum()
    if calibrated:
        expected += (g * (paper(x, 2.0, num_bits, signed) - x) / 2)[inside].sum()
    assert float(dalpha) == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("initial_alpha", [8.0, 10.0, 0.25])
def test_alpha_starts_where_asked(initial_alpha, variables_of):
    alpha = variables_of(PACTQuantizer(4, initial_alpha=initial_alpha))["alpha"]
    assert float(alpha) == initial_alpha
    assert alpha.trainable
    assert alpha.shape == ()
    assert "post_activation" in alpha.name


def test_alpha_starts_at_8_by_default(variables_of):
    assert float(variables_of(PACTQuantizer())["alpha"]) == 8


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("calibrated", [False, True])
def test_alpha_below_zero_recovers(calibrated, signed, variables_of):
    quantizer = PACTQuantizer(4, signed, calibrated)
    variables = variables_of(quantizer)
    variables["alpha"].assign(-1.0)
    x = tf.constant([0.5, 1.0, 2.0, -2.0])
    assert np.isfinite(quantizer(x, True, variables)).all()
    quantizer.quant_params({"alpha": variables["alpha"].numpy()})
    optimizer = tf_keras.optimizers.SGD(0.05)
    for _ in range(100):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((quantizer(x, True, variables) - x) ** 2)
        optimizer.minimize(loss, variables.values(), tape)
    assert float(variables["alpha"]) > 1


@pytest.mark.parametrize(("num_bits", "signed"), [(2, False), (8, False), (2, True), (8, True)])
@pytest.mark.parametrize("x", [np.zeros(5), np.full(5, 0.3), np.ones(1), np.array([1e30, -1e30]), np.full(3, 1e-30)])
def test_degenerate_tensors(x, num_bits, signed, variables_of, integers_on_grid, value_and_gradients):
    quantizer = PACTQuantizer(num_bits, signed)
    variables = variables_of(quantizer)
    integers_on_grid(quantizer, x, variables)
    _, gradient = value_and_gradients(lambda x: quantizer(x, True, variables), x)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"initial_alpha": 0.0}, "initial_alpha must be positive. Received: initial_alpha=0.0"),
        ({"initial_alpha": -8.0}, "initial_alpha must be positive. Received: initial_alpha=-8.0"),
        ({"initial_alpha": np.nan}, "initial_alpha must be positive. Received: initial_alpha=nan"),
        ({"alpha_decay": -1e-4}, "alpha_decay must not be negative. Received: alpha_decay=-0.0001"),
        ({"alpha_decay": np.inf}, "alpha_decay must not be negative. Received: alpha_decay=inf"),
    ],
)
def test_arguments_that_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PACTQuantizer(**arguments)


@pytest.mark.parametrize("alpha", [0.0, -0.5, -3.0, -1e4])
def test_a_negative_alpha_is_floored_exactly(alpha, variables_of, integers_on_grid):
    """What the model computes with is the grid that `quant_params` states."""
    quantizer = PACTQuantizer(4)
    variables = variables_of(quantizer)
    variables["alpha"].assign(alpha)
    np.testing.assert_array_equal(integers_on_grid(quantizer, [0.0, 1.0], variables), [0, 15])
    with tf.GradientTape() as tape:
        y = quantizer(tf.constant([5e-5, 1.0]), True, variables)
    assert float(tape.gradient(y, variables["alpha"])) == pytest.approx(1, abs=1)
