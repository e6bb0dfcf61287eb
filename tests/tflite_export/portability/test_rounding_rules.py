"""Tests of the rules against exact fractions and against the kernels' formulas as the operators' tests have them."""

from fractions import Fraction
from math import floor

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tflite_export.operators import rounding
from tflite_export.portability.rounding_rules import (
    Scales,
    away,
    disagree,
    double,
    half_up,
    levels_under_all_rules,
    single,
    upward,
)

multipliers = st.floats(2.0**-20, 0.99).map(np.float64) | st.integers(-12, -1).map(lambda e: np.float64(2.0**e))
some = settings(deadline=None, derandomize=True, database=None, max_examples=60)


def sums_near_ties(multiplier) -> np.ndarray:
    ties = np.arange(-140, 140) + 0.5
    near = np.floor(ties / multiplier)[:, None] + np.arange(-3, 4)
    return np.unique(near[np.abs(near) < 2**30].astype(np.int64))


@some
@given(multipliers)
def test_rules_are_the_kernels_own(multiplier):
    sums = sums_near_ties(multiplier)
    np.testing.assert_array_equal(single(sums, np.float32(multiplier)), rounding.once(sums, np.float32(multiplier)))
    np.testing.assert_array_equal(double(sums, multiplier), rounding.twice(sums, multiplier))
    np.testing.assert_array_equal(away(sums, multiplier), rounding.away_from_zero(sums * multiplier))


@some
@given(multipliers)
def test_rules_that_no_kernel_of_ours_has_are_exact(multiplier):
    mantissa, exponent = rounding.mantissa_and_exponent(float(multiplier))
    fixed_point = Fraction(mantissa) * Fraction(2) ** (exponent - 31)
    sums = sums_near_ties(multiplier)[:300]
    half = Fraction(1, 2)
    expected = [floor(int(s) * fixed_point + half) for s in sums]
    np.testing.assert_array_equal(half_up(sums, multiplier), expected)
    shift = max(-exponent, 0)
    highs = [floor(int(s) * fixed_point * 2**shift + half) for s in sums]
    np.testing.assert_array_equal(upward(sums, multiplier), [floor(Fraction(high, 2**shift) + half) for high in highs])


def test_multipliers_of_one_and_more_shift_to_the_left_first():
    sums = np.arange(-300, 300)
    for multiplier in (1.0, 1.37, 6.02, 200.0):
        np.testing.assert_array_equal(double(sums, multiplier), rounding.twice(sums, np.float64(multiplier)))
        np.testing.assert_array_equal(double(sums, multiplier), upward(sums, multiplier))


@some
@given(st.floats(1e-4, 0.5), st.floats(0.01, 10), st.floats(0.01, 10), st.booleans())
def test_sums_part_where_any_two_rules_do_after_the_clamp(multiplier, input_scale, output_scale, one_product):
    weight = np.float32(multiplier * output_scale / input_scale)
    scales = Scales(np.float32(input_scale), weight, np.float32(output_scale), one_product)
    sums = sums_near_ties(multiplier)
    levels = np.stack([np.clip(rule, -8, 120) for rule in levels_under_all_rules(sums, scales)])
    np.testing.assert_array_equal(disagree(sums, scales, -8, 120), np.ptp(levels, axis=0) > 0)


def test_the_rules_part_at_exact_ties_and_next_to_them():
    scales = Scales(np.float32(1), np.float32(2.0**-4), np.float32(1))
    sums = np.arange(-40, 40)
    # 8, -8, 24, ... are ties themselves; 7, -9, 23, ... become ties when they are halved and rounded.
    np.testing.assert_array_equal(disagree(sums, scales, -128, 127), np.isin(sums % 16, (7, 8)))
    assert not disagree(sums, scales, 0, 0).any()
    # 1/3 has no ties, but rounding twice makes one of 0.4995.
    third = Scales(np.float32(1), np.float32(1 / 3 / 333), np.float32(1))
    assert disagree(np.array([499]), third, -128, 127).all()
    assert not disagree(np.array([498, 500]), third, -128, 127).any()
