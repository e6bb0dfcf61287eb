"""Tests of gemmlowp's fixed-point functions: against NumPy's from the kernels' sources, and against real numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tflite_export.operators import gemmlowp, rounding
from tflite_export.operators import fixed_point

INT32 = st.integers(-(2**31) + 1, 2**31 - 1)


@given(a=INT32, b=INT32)
def test_products(a, b):
    assert int(fixed_point.high_product(a, b)) == int(rounding.high_product(a, b))


@given(x=INT32, exponent=st.integers(0, 31))
def test_divisions(x, exponent):
    assert int(fixed_point.divide_by_power(np.int64(x), exponent)) == int(
        rounding.divided_by_power(np.int64(x), exponent)
    )


@pytest.mark.parametrize("bits", [4, 5])
def test_exp_on_negative_values(bits):
    """Every bit of the argument that has a factor of its own, their sums, and both ends of the range."""
    rng = np.random.default_rng(0)
    edges = np.concatenate([2 ** np.arange(32), 2 ** np.arange(32) - 1, rng.integers(0, 2**31, 20000)])
    a = -np.minimum(edges, 2**31)
    found = fixed_point.exp_on_negative_values(a, bits)
    np.testing.assert_array_equal(found, gemmlowp.exp_on_negative_values(a, bits))
    assert np.abs(found / 2**31 - np.exp(a / 2 ** (31 - bits))).max() < 1e-6


def test_one_over_one_plus():
    a = np.concatenate([np.random.default_rng(0).integers(0, 2**31, 20000), [0, 1, 2**30, 2**31 - 1]])
    found = fixed_point.one_over_one_plus(a)
    np.testing.assert_array_equal(found, gemmlowp.times_power(gemmlowp.half_of_one_over_one_plus(a), 1))
    assert np.abs(found / 2**31 - 1 / (1 + a / 2**31)).max() < 1e-7


@given(scale=st.floats(2**-20, 2**7, width=32), seed=st.integers(0, 2**32 - 1), classes=st.integers(1, 510))
def test_softmax(scale, seed, classes):
    x = np.random.default_rng(seed).integers(-128, 128, (4, classes))
    x[-1] = np.random.default_rng(seed).choice([-128, 127], classes)
    np.testing.assert_array_equal(fixed_point.softmax(x, np.float32(scale)), gemmlowp.softmax(x, np.float32(scale)))


def test_softmax_of_more_than_it_can_add_up():
    assert fixed_point.softmax(np.zeros((1, 511), np.int64), np.float32(1)).shape == (1, 511)
    with pytest.raises(ValueError, match="add up to 512 or more"):
        fixed_point.softmax(np.zeros((1, 512), np.int64), np.float32(1))
