"""The integer grid: conversion both ways, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from satkeras.quantizers.quant_params import QuantParams, activation_levels


@given(
    integers=st.lists(st.integers(-128, 127), min_size=1),
    scale=st.floats(2**-20, 2**20, width=32),
    zero_point=st.integers(-128, 127),
)
def test_integers_survive_the_way_to_reals_and_back(integers, scale, zero_point):
    params = QuantParams(np.float32(scale), zero_point, -128, 127)
    reals = params.dequantize(integers)
    assert reals.dtype == np.float32
    np.testing.assert_array_equal(params.quantize(reals), integers)
    np.testing.assert_array_equal(params.integers_of(reals), integers)


def test_quantize_rounds_ties_to_even_and_saturates():
    found = QuantParams(np.float32(0.5), 3, -4, 4).quantize([-100, -0.25, 0.25, 0.26, 100, 0])
    np.testing.assert_array_equal(found, [-4, 3, 3, 4, 4, 3])
    assert found.dtype == np.int32


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_scales_run_along_their_axis(axis):
    shape = (2, 3, 4)
    scale = np.arange(1, shape[axis] + 1, dtype=np.float32)
    params = QuantParams(scale, 0, -7, 7, axis)
    integers = np.random.default_rng(0).integers(-7, 8, shape)
    reals = params.dequantize(integers)
    for index, step in enumerate(scale):
        np.testing.assert_array_equal(reals.take(index, axis), integers.take(index, axis) * step)
    np.testing.assert_array_equal(params.integers_of(reals), integers)


@pytest.mark.parametrize("values", [[0.25], [8.0], [-8.0], [np.nan], [np.inf]])
def test_integers_of_refuses_values_off_the_grid(values):
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="Values must lie on the grid"):
        QuantParams(np.float32(0.5), 0, -7, 7).integers_of(values)


@given(
    indices=st.lists(st.integers(0, 15), min_size=1),
    scale=st.floats(2**-20, 2**20, width=32),
    zero_point=st.integers(-3, 3),
    spacing=st.integers(1, 4),
)
def test_levels_that_lie_apart(indices, scale, zero_point, spacing):
    params = QuantParams(np.float32(scale), zero_point, -15, -15 + 15 * spacing, spacing=spacing)
    levels = -15 + spacing * np.array(indices)
    np.testing.assert_array_equal(params.integers_of(params.dequantize(levels)), levels)
    between = params.dequantize(levels + 1)
    if spacing > 1:
        with pytest.raises(ValueError, match="Values must lie on the grid"):
            params.integers_of(between)
        assert np.abs(params.quantize(between) - levels - 1).max() <= max(spacing // 2, 1)


def test_quantize_finds_the_nearest_odd_level():
    found = QuantParams(np.float32(0.5), 0, -15, 15, spacing=2).quantize([-0.6, 0.01, 0.99, 1.01, 100, -100])
    np.testing.assert_array_equal(found, [-1, 1, 1, 3, 15, -15])


def test_integers_of_an_empty_tensor():
    assert QuantParams(np.float32(1), 0, 0, 1).integers_of(np.zeros((0, 3))).shape == (0, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 0, 0, 255), "positive, finite scale"),
        ((-1.0, 0, 0, 255), "positive, finite scale"),
        ((np.nan, 0, 0, 255), "positive, finite scale"),
        ((np.inf, 0, 0, 255), "positive, finite scale"),
        (([1.0, 0.0], 0, 0, 255, 0), "positive, finite scale"),
        ((1.0, 0, 7, 7), "qmin < qmax. Received: qmin=7, qmax=7"),
        ((1.0, 0, 0, 7, 0), "axis is for per-axis scales"),
        ((1.0, 0, 0, 7, None, 2), "positive spacing that leads from qmin to qmax. Received: spacing=2, qmin=0, qmax=7"),
        ((1.0, 0, 0, 7, None, 0), "spacing=0"),
        (([1.0, 2.0], 0, 0, 7), "axis is for per-axis scales"),
    ],
)
def test_impossible_grids(arguments, message):
    with pytest.raises(ValueError, match=message):
        QuantParams(*arguments)


@pytest.mark.parametrize(
    ("num_bits", "unsigned", "signed"),
    [(2, 3, (-1, 1)), (3, 7, (-3, 3)), (4, 15, (-7, 7)), (7, 127, (-63, 63)), (8, 255, (-128, 127))],
)
def test_activation_levels(num_bits, unsigned, signed):
    assert activation_levels(num_bits, signed=False) == (0, unsigned)
    assert activation_levels(num_bits, signed=True) == signed
