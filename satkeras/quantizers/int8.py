"""The one place that says where a quantizer's integer grid lies in int8, and whether it fits.

The exporter and the rounding of biases both ask it, and every cast to a narrower integer goes through `narrowed`.
"""

import dataclasses

import numpy as np

# TFLite's specification for weights: -127 .. 127. Kernels on 64-bit Arm sum two products in int16, which holds two of
# -128 * 127 but not two of -128 * -128.
LARGEST_WEIGHT = 127


@dataclasses.dataclass(frozen=True)
class Int8Levels:
    """Where an activation's grid lies in int8.

    Attributes:
      zero_point: the int8 value that stands for 0.0.
      lowest: the int8 value of the grid's smallest integer.
      highest: the int8 value of the grid's largest integer.
    """

    zero_point: int
    lowest: int
    highest: int


def weight_spread(levels: tuple[int, int], zero_point: int = 0) -> int:
    """How many int8 steps are stored for one step of a weight grid, to use the whole of int8.

    The grid stays exact, and the bias, stored in steps of input scale times weight scale, gets that much finer.
    A grid that reaches to -128 is not spread; whether -128 occurs, only the weights can tell.

    Args:
      levels: the smallest and largest integer of the grid.
      zero_point: the integer that stands for 0.0.

    Raises:
      ValueError: int8 weights, whose zero point is 0, cannot hold the grid.
    """
    low, high = (level - zero_point for level in levels)
    largest = max(abs(low), abs(high))
    if largest > LARGEST_WEIGHT + 1:
        raise ValueError(
            f"its weight grid has the integers {low} .. {high} around zero; int8 weights have a zero point of 0 and "
            f"hold -{LARGEST_WEIGHT} .. {LARGEST_WEIGHT}. Give it fewer bits, or the symmetric grid of 8 bits, "
            f"-{LARGEST_WEIGHT} .. {LARGEST_WEIGHT}"
        )
    return max(LARGEST_WEIGHT // largest, 1)


def activation_levels_in_int8(levels: tuple[int, int], zero_point: int = 0) -> Int8Levels:
    """Where an activation's grid lies in int8.

    256 levels fill int8. Fewer lie at its top, so that the saturation of int8 is the upper clip.

    Args:
      levels: the smallest and largest integer of the grid.
      zero_point: the integer that stands for 0.0.

    Raises:
      ValueError: the grid has more than 256 levels, or 0.0 lies outside it.
    """
    low, high = levels
    if high - low > 255:
        raise ValueError(
            f"its grid has the integers {low} .. {high}, {high - low + 1} of them; int8 holds 256. Give it 8 bits "
            "or fewer"
        )
    if not low <= zero_point <= high:
        raise ValueError(
            f"0.0 is the integer {zero_point} of its grid, outside {low} .. {high}; TFLite pads with 0.0, which must "
            "be a level"
        )
    shift = 127 - high
    return Int8Levels(zero_point + shift, low + shift, 127)


def narrowed(values, dtype) -> np.ndarray:
    """Whole numbers in an integer type that holds them all.

    Args:
      values: numbers of any type.
      dtype: an integer type.

    Raises:
      ValueError: a number is not whole, not finite, or outside the type's range; nothing wraps.
    """
    values = np.asarray(values)
    limits = np.iinfo(dtype)
    if values.size and not (values.min() >= limits.min and values.max() <= limits.max):
        raise ValueError(
            f"{np.dtype(dtype).name} holds {limits.min} .. {limits.max}. Received: numbers from {values.min():g} to "
            f"{values.max():g}"
        )
    narrow = values.astype(dtype)
    if not np.array_equal(narrow, values):
        raise ValueError(f"{np.dtype(dtype).name} holds whole numbers. Received: fractions")
    return narrow


def is_narrow_symmetric(levels: tuple[int, int], zero_point: int) -> bool:
    """Whether an activation's grid is -n .. n with n below 127.

    Such a grid can be stored in units of its clip value, around int8's zero, so that RELU_N1_TO_1 clips at both ends.
    """
    low, high = levels
    return low == -high and zero_point == 0 and high < 127
