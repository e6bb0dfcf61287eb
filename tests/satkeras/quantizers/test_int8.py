"""Where grids lie in int8, and the one cast."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from satkeras.quantizers.int8 import activation_levels_in_int8, is_narrow_symmetric, narrowed, weight_spread


@given(st.integers(-128, 127), st.integers(-128, 127))
def test_spread_weights_stay_within_int8_and_could_not_go_farther(low, high):
    low, high = sorted((low, high))
    if low == high == 0:
        return
    largest = max(abs(low), abs(high))
    spread = weight_spread((low, high))
    if largest == 128:
        assert spread == 1
    else:
        assert spread * largest <= 127 < (spread + 1) * largest


def test_a_weight_grid_is_counted_from_its_zero_point():
    assert weight_spread((0, 15), 8) == weight_spread((-8, 7)) == 15
    assert weight_spread((0, 1), 0) == 127


@pytest.mark.parametrize(
    ("levels", "zero_point", "numbers"), [((0, 255), 0, "0 .. 255"), ((0, 255), 126, "-126 .. 129")]
)
def test_a_weight_grid_beyond_int8_is_refused_with_its_numbers(levels, zero_point, numbers):
    with pytest.raises(ValueError, match=f"integers {numbers} around zero.*-127 .. 127"):
        weight_spread(levels, zero_point)


@given(st.integers(-200, 200), st.integers(1, 255), st.data())
def test_an_activation_grid_ends_at_the_top_of_int8(low, width, data):
    high = low + width
    zero_point = data.draw(st.integers(low, high))
    place = activation_levels_in_int8((low, high), zero_point)
    assert place.highest == 127 and place.lowest == 127 - width >= -128
    assert place.zero_point - place.lowest == zero_point - low  # every integer moves alike


def test_an_activation_grid_of_more_than_256_levels_is_refused():
    with pytest.raises(ValueError, match="-200 .. 200, 401 of them; int8 holds 256"):
        activation_levels_in_int8((-200, 200))


def test_an_activation_grid_without_zero_is_refused():
    with pytest.raises(ValueError, match="0.0 is the integer 0 of its grid, outside 1 .. 15"):
        activation_levels_in_int8((1, 15), 0)


@pytest.mark.parametrize(
    ("levels", "zero_point", "narrow"),
    [((-7, 7), 0, True), ((-8, 7), 0, False), ((-127, 127), 0, False), ((0, 15), 0, False), ((-7, 7), 1, False)],
)
def test_narrow_symmetric_grids(levels, zero_point, narrow):
    assert is_narrow_symmetric(levels, zero_point) == narrow


@given(st.lists(st.integers(-300, 300), min_size=1))
def test_a_cast_holds_every_number_or_is_refused(numbers):
    if all(-128 <= number <= 127 for number in numbers):
        assert narrowed(np.array(numbers), np.int8).tolist() == numbers
    else:
        with pytest.raises(ValueError, match="int8 holds -128 .. 127"):
            narrowed(np.array(numbers), np.int8)


@pytest.mark.parametrize("numbers", [[0.5], [np.nan], [np.inf]])
def test_what_is_no_whole_number_is_not_cast(numbers):
    with pytest.raises(ValueError, match="int8 holds"), np.errstate(invalid="ignore"):
        narrowed(numbers, np.int8)
