"""Tests of how kernels round: the exporter's arithmetic against NumPy's and Python's integers."""

import fractions
import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tests.tflite_export.operators import rounding
from tflite_export.operators.arithmetic import (
    EXACT_IN_FLOAT32,
    away_from_zero,
    opaque,
    quantize_multiplier,
    round_once,
    round_twice,
)

EDGES = [2**k + d for k in range(31) for d in (-1, 0, 1)]
SUMS = np.unique(np.int64([sign * edge for edge in EDGES for sign in (-1, 1)]))
sums = st.one_of(st.sampled_from(SUMS.tolist()), st.integers(-(2**31) + 1, 2**31 - 1))
multipliers = st.one_of(
    st.sampled_from([2.0**-32, 2.0**-31, 0.25, 0.5, 1 - 2.0**-24, 1.0, 1 + 2.0**-23, 256 * (1 - 2.0**-24)]),
    st.floats(2**-32, 255, width=32),
)


def to_nearest(value: fractions.Fraction, tie_up: bool) -> int:
    """To the nearest integer; a tie goes up, or else away from zero."""
    half = fractions.Fraction(1, 2)
    return math.floor(value + half) if tie_up or value >= 0 else -math.floor(-value + half)


@given(total=sums, multiplier=multipliers)
def test_round_twice_is_two_roundings_of_fractions(total, multiplier):
    mantissa, exponent = rounding.mantissa_and_exponent(multiplier)
    left = max(exponent, 0)
    total >>= left  # what a kernel shifts stays in int32
    high = to_nearest(fractions.Fraction((total << left) * mantissa, 2**31), tie_up=True)
    expected = to_nearest(fractions.Fraction(high, 2 ** max(-exponent, 0)), tie_up=False)
    assert int(round_twice(tf.constant(total, tf.int64), np.float64(multiplier))) == expected


@pytest.mark.parametrize("multiplier", [2.0**-32, 2.0**-31, 0.1, 0.25, 0.5 - 2.0**-26, 0.5, 1 - 2.0**-24])
def test_rounding_at_the_edges_of_int32(multiplier):
    np.testing.assert_array_equal(
        round_twice(SUMS, np.float64(multiplier)), rounding.twice(SUMS, np.float64(multiplier))
    )
    np.testing.assert_array_equal(round_once(SUMS, np.float32(multiplier)), rounding.once(SUMS, np.float32(multiplier)))


def test_a_multiplier_for_each_channel():
    total = np.random.default_rng(0).integers(-(2**22), 2**22, (5, 3))
    multiplier = np.float64([0.001, 0.7, 1.3])
    expected = np.stack([rounding.twice(total[:, i], multiplier[i]) for i in range(3)], -1)
    np.testing.assert_array_equal(round_twice(total, multiplier), expected)


def test_rounding_twice_takes_sums_in_any_dtype():
    for dtype in (tf.float32, tf.float64, tf.int32, tf.int64):
        assert int(round_twice(tf.constant(3, dtype), 0.5)) == 2


@given(multiplier=st.floats(2**-40, 2**10))
def test_a_quantized_multiplier_is_within_half_a_unit_of_its_mantissa(multiplier):
    mantissa, exponent = (int(part) for part in quantize_multiplier(multiplier))
    assert (mantissa, exponent) == rounding.mantissa_and_exponent(multiplier)
    if mantissa:
        assert 2**30 <= mantissa < 2**31
        assert abs(math.ldexp(mantissa, exponent - 31) - multiplier) <= math.ldexp(0.5, exponent - 31)


def test_a_mantissa_that_rounds_up_to_2_31_is_halved():
    assert [int(part) for part in quantize_multiplier(1 - 2.0**-40)] == [2**30, 1]


def test_a_multiplier_below_2_32_is_zero():
    assert [int(part) for part in quantize_multiplier(2.0**-33)] == [0, 0]
    assert int(round_twice(tf.constant(2**31 - 1, tf.int64), 2.0**-33)) == 0


def test_away_from_zero():
    values = tf.constant([0.0, 0.5, 1.5, 2.5, -0.5, -1.5, 0.49, -0.51])
    np.testing.assert_array_equal(away_from_zero(values), [0, 1, 2, 3, -1, -2, 0, -1])


def test_float32_holds_every_integer_up_to_its_limit():
    below = np.arange(EXACT_IN_FLOAT32 - 1000, EXACT_IN_FLOAT32 + 1)
    np.testing.assert_array_equal(below.astype(np.float32).astype(np.int64), below)
    assert np.float32(EXACT_IN_FLOAT32 + 1) == EXACT_IN_FLOAT32


def test_the_graph_optimizer_does_not_fold_an_opaque_constant():
    """A product of two constants it would compute itself, and a multiplier it would move into a kernel."""

    @tf.function
    def graph(x):
        return x * opaque(3.0, tf.float32)

    nodes = graph.get_concrete_function(tf.TensorSpec((2,), tf.float32)).graph.as_graph_def().node
    assert any(node.op == "PlaceholderWithDefault" for node in nodes)
    np.testing.assert_array_equal(graph(tf.constant([1.0, 2.0])), [3, 6])
