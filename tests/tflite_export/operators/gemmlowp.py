"""gemmlowp's fixed-point functions in NumPy, written from fixedpoint.h and TFLite's reference kernels that call it.

A number of i integer bits is an int32 that stands for `integer / 2^(31 - i)`.
"""

import math

import numpy as np

from tests.tflite_export.operators.rounding import divided_by_power, high_product, in_int32, mantissa_and_exponent

LARGEST, SMALLEST = 2**31 - 1, -(2**31)


def times_power(x, exponent: int) -> np.ndarray:
    """SaturatingRoundingMultiplyByPOT, to the left."""
    end = (1 << (31 - exponent)) - 1
    return np.where(x > end, LARGEST, np.where(x < -end, SMALLEST, x << exponent))


def exp_on_negative_values(a, integer_bits: int) -> np.ndarray:
    """`exp` of numbers of at most 0, as a number without integer bits."""
    a = np.asarray(a, np.int64)
    fraction_bits = 31 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    rest = (a & (quarter - 1)) - quarter
    x = times_power(rest, integer_bits) + 2**28
    x2 = high_product(x, x)
    x3, x4 = high_product(x2, x), high_product(x2, x2)
    tail = divided_by_power(high_product(divided_by_power(x4, 2) + x3, 715827883) + x2, 1)
    result = 1895147668 + high_product(1895147668, x + tail)
    for exponent, factor in (
        (-2, 1672461947),
        (-1, 1302514674),
        (0, 790015084),
        (1, 290630308),
        (2, 39332535),
        (3, 720401),
        (4, 242),
    ):
        if integer_bits > exponent:
            bit = 1 << (fraction_bits + exponent)
            result = np.where((rest - a) & bit != 0, high_product(result, factor), result)
    return np.where(a == 0, LARGEST, result)


def half_of_one_over_one_plus(a) -> np.ndarray:
    """`1 / (1 + a)` with one integer bit, by three steps of Newton's."""
    half = (np.asarray(a, np.int64) + LARGEST + 1) >> 1
    x = 1515870810 + high_product(half, -1010580540)
    for _ in range(3):
        x = x + times_power(high_product(x, 2**29 - high_product(half, x)), 2)
    return x


def softmax(x, scale) -> np.ndarray:
    """reference_ops::Softmax of int8, beta 1."""
    mantissa, shift = mantissa_and_exponent(min(float(scale) * 2.0**26, 2.0**31 - 1))
    lowest = -math.floor(31 * 2.0**26 / 2.0**shift)
    below = x - x.max(-1, keepdims=True)
    counted = below >= lowest
    scaled = high_product(in_int32(np.where(counted, below, 0) << shift), mantissa)
    powers = np.where(counted, exp_on_negative_values(scaled, 5), 0)
    total = in_int32(np.where(counted, divided_by_power(powers, 12), 0).sum(-1, keepdims=True))
    zeros = 32 - np.vectorize(lambda value: int(value).bit_length())(total)
    inverse = times_power(half_of_one_over_one_plus((total << zeros) - 2**31), 1)
    levels = divided_by_power(high_product(inverse, powers), 12 - zeros + 31 - 8)
    return np.clip(np.where(counted, levels - 128, -128), -128, 127)
