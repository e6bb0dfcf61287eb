"""DoReFa's weights and activations against the paper's equations."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from satkeras.quantizers import DoReFaActivationQuantizer, DoReFaWeightQuantizer

ODD = [(num_bits, "odd") for num_bits in range(2, 8)]
CENTRED = [(num_bits, "centred") for num_bits in range(2, 8)]
SYMMETRIC = [(num_bits, "symmetric") for num_bits in range(2, 9)]
ALL = ODD + CENTRED + SYMMETRIC
DEGENERATE = {
    "zeros": np.zeros((3, 4)),
    "constant": np.full((3, 4), 0.3),
    "negative": np.full((3, 4), -0.3),
    "one element": np.array([[-0.2]]),
    "huge": np.array([[1e30, -1e30], [0, 1e-30]]),
    "tiny": np.array([[1e-30, -1e-30], [0, 2e-31]]),
}


def paper(latent, num_bits, grid):
    """DoReFa, eq. 9: `2 q_k(tanh(w) / (2 max|tanh w|) + 1/2) - 1`; the other grids are AdaBits' and N2D2's."""
    bounded = np.tanh(np.asarray(latent, np.float64))
    unit = bounded / (2 * np.abs(bounded).max()) + 0.5
    if grid == "odd":
        a = 2**num_bits - 1
        return 2 * np.rint(a * unit) / a - 1
    if grid == "centred":
        return 2 / 2**num_bits * (np.clip(np.floor(2**num_bits * unit), 0, 2**num_bits - 1) + 0.5) - 1
    n = 2 ** (num_bits - 1) - 1
    return np.rint(n * (2 * unit - 1)) / n


@pytest.mark.parametrize(("num_bits", "grid"), ALL)
def test_weights_are_the_papers(num_bits, grid):
    latent = np.random.default_rng(num_bits).normal(0, 0.5, (3, 3, 8, 16)).astype(np.float32)
    found = DoReFaWeightQuantizer(num_bits, grid)(tf.constant(latent), True, {}).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, paper(latent, num_bits, grid), atol=1e-6)


@pytest.mark.parametrize(("num_bits", "grid"), ALL)
def test_weight_integers_fill_the_grid(num_bits, grid, integers_on_grid):
    latent = np.arctanh(np.linspace(-0.9, 0.9, 4001)).astype(np.float32)
    integers = integers_on_grid(DoReFaWeightQuantizer(num_bits, grid), latent, {})
    top = 2 ** (num_bits - 1) - 1 if grid == "symmetric" else 2**num_bits - 1
    assert set(integers) == set(range(-top, top + 1, 1 if grid == "symmetric" else 2))
    assert -128 <= integers.min() < integers.max() <= 127
    assert (0 in integers) == (grid == "symmetric")


@pytest.mark.parametrize("num_bits", range(2, 9))
def test_default_grid(num_bits):
    expected = "symmetric" if num_bits == 8 else "odd"
    assert DoReFaWeightQuantizer(num_bits).effective_grid == expected
    assert DoReFaWeightQuantizer(num_bits, "centred").effective_grid == expected.replace("odd", "centred")
    latent = tf.constant(np.random.default_rng(0).normal(size=(4, 50)), tf.float32)
    found, same = (DoReFaWeightQuantizer(num_bits, grid)(latent, True, {}) for grid in (None, expected))
    np.testing.assert_array_equal(found, same)


def test_grids_that_are_refused():
    with pytest.raises(ValueError, match="odd grid at 8 bits needs integers -255 .. 255.*use 'symmetric'"):
        DoReFaWeightQuantizer(8, "odd")
    with pytest.raises(
        ValueError, match=r"grid must be one of \('odd', 'centred', 'symmetric'\) or None. Received: grid='even'"
    ):
        DoReFaWeightQuantizer(4, "even")


def test_full_precision_weights_are_clamped_only():
    latent = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    bounded = np.tanh(latent)
    found = DoReFaWeightQuantizer(None)(tf.constant(latent), True, {})
    np.testing.assert_allclose(found, bounded / np.abs(bounded).max(), rtol=1e-6)


@pytest.mark.parametrize(("num_bits", "grid"), [*ALL, (None, None)])
def test_weight_gradient(num_bits, grid, value_and_gradients):
    """Straight through the rounding; tanh and the maximum are differentiated."""
    rng = np.random.default_rng(1)
    latent, incoming = rng.normal(size=(2, 3, 3, 2, 4)).astype(np.float32)
    quantizer = DoReFaWeightQuantizer(num_bits, grid)
    _, found = value_and_gradients(lambda w: quantizer(w, True, {}), latent, incoming=incoming)
    bounded = np.tanh(latent)
    slope = 1 - bounded**2
    largest = np.unravel_index(np.abs(bounded).argmax(), bounded.shape)
    expected = incoming * slope / np.abs(bounded[largest])
    expected[largest] -= np.sign(bounded[largest]) * slope[largest] * (incoming * bounded).sum() / bounded[largest] ** 2
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@given(
    latent=arrays.arrays(np.float32, (2, 6), elements=st.floats(-1e3, 1e3, width=32, allow_subnormal=False)),
    case=st.sampled_from(ALL),
)
def test_weights_stay_in_order_and_reach_the_end_of_the_grid(latent, case, integers_on_grid):
    quantizer = DoReFaWeightQuantizer(*case)
    integers = integers_on_grid(quantizer, latent, {})
    assert (np.diff(integers.ravel()[latent.argsort(None)]) >= 0).all()
    if latent.any():
        assert np.abs(integers).max() == quantizer.quant_params({}).qmax


@pytest.mark.parametrize("latent", DEGENERATE.values(), ids=DEGENERATE.keys())
@pytest.mark.parametrize(("num_bits", "grid"), [ODD[0], ODD[-1], CENTRED[0], CENTRED[-1], SYMMETRIC[0], SYMMETRIC[-1]])
def test_degenerate_weights_stay_on_the_grid(num_bits, grid, latent, integers_on_grid, value_and_gradients):
    quantizer = DoReFaWeightQuantizer(num_bits, grid)
    integers = integers_on_grid(quantizer, latent, {})
    assert (integers % 2 == 1).all() or grid == "symmetric"
    _, gradient = value_and_gradients(lambda w: quantizer(w, True, {}), latent)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("num_bits", range(2, 9))
def test_activations_are_clipped_to_one(num_bits, signed, value_and_gradients, integers_on_grid):
    n = 2 ** (num_bits - 1) - 1 if signed else 2**num_bits - 1
    lowest = 0 if not signed else -128 if num_bits == 8 else -n
    x = np.random.default_rng(0).uniform(-1.5, 1.5, 3000).astype(np.float32)
    x = x[np.abs(x * n % 1 - 0.5) > 1e-3]
    quantizer = DoReFaActivationQuantizer(num_bits, signed)
    value, gradient = value_and_gradients(lambda x: quantizer(x, True, {}), x, incoming=3.0)
    expected = np.clip(np.rint(x * n), lowest, n)
    np.testing.assert_allclose(value, expected / n, atol=1e-6)
    np.testing.assert_array_equal(gradient, np.where((x > lowest / n) & (x < 1), 3, 0))
    np.testing.assert_array_equal(integers_on_grid(quantizer, x, {}), expected)


@pytest.mark.parametrize(("signed", "edges"), [(False, [0.0, 1.0]), (True, [-1.0, 1.0])])
def test_activation_gradient_includes_the_edges(signed, edges, value_and_gradients):
    quantizer = DoReFaActivationQuantizer(4, signed)
    value, gradient = value_and_gradients(lambda x: quantizer(x, True, {}), edges)
    np.testing.assert_array_equal(value, edges)
    np.testing.assert_array_equal(gradient, 1)


def test_config_round_trip_of_the_grid(round_trip):
    assert round_trip(DoReFaWeightQuantizer(5, "symmetric"))["config"]["grid"] == "symmetric"
