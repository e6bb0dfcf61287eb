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


def logistic(x, scale) -> np.ndarray:
    """TFLite Micro's LOGISTIC of centred integers, as int8."""
    inner, radius = four_integer_bits(x, scale)
    power = times_power(half_of_one_over_one_plus(exp_on_negative_values(-np.abs(inner), 4)), 1)
    result = np.where(inner == 0, 2**30, np.where(inner > 0, power, LARGEST - power))
    return saturated(divided_by_power(result, 23) - 128, x, radius)


def tanh(x, scale) -> np.ndarray:
    """TFLite Micro's TANH of centred integers, as int8."""
    inner, radius = four_integer_bits(x, scale)
    half = half_of_one_over_one_plus(exp_on_negative_values(-np.abs(inner), 5))
    result = times_power(half - 2**29, 2)
    result = np.where(inner == 0, 0, np.where(inner < 0, -result, result))
    return saturated(divided_by_power(result, 24), x, radius)


def four_integer_bits(x, scale) -> tuple[np.ndarray, int]:
    """The input of both, and CalculateInputRadius."""
    mantissa, shift = mantissa_and_exponent(float(scale) * 2.0**27)
    radius = math.floor(15 * 2.0**27 / 2.0**shift)
    inside = in_int32(np.clip(x, -radius, radius) << max(shift, 0))
    return divided_by_power(high_product(inside, mantissa), max(-shift, 0)), radius


def saturated(levels, x, radius: int) -> np.ndarray:
    return np.clip(np.where(x <= -radius, -128, np.where(x >= radius, 127, levels)), -128, 127)


def hard_swish(x, scale, output_scale) -> np.ndarray:
    """reference_ops::HardSwish of centred integers, in output steps, with the wraps of int16."""

    def wrapped(v):
        return (np.asarray(v, np.int64) + 2**15) % 2**16 - 2**15

    def product(a, b):
        ab = a * b
        nudged = ab + np.where(ab >= 0, 2**14, 1 - 2**14)
        return np.where(nudged >= 0, nudged >> 15, -(-nudged >> 15))

    def short(multiplier):
        mantissa, exponent = mantissa_and_exponent(float(multiplier))
        return (32767 if mantissa >= 2**31 - 1 - 2**15 else (mantissa + 2**15) >> 16), exponent

    def clipped(v):
        return np.clip(v, -(2**15), 2**15 - 1)

    finer = np.float32(1 / 128) * scale
    output_mantissa, output_exponent = short(finer / output_scale)
    mantissa, exponent = short(finer / np.float32(3 / 2**15))
    value = wrapped(x * 128)
    gate = clipped(value * 2 ** (exponent - 1)) if exponent > 0 else value
    gate = product(gate, mantissa)
    if exponent > 0:
        gate = clipped(gate * 2)
    if exponent < 0:
        gate = divided_by_power(gate, -exponent)
    gate = wrapped(gate + 2**15 >> 1)
    result = gate * product(value, output_mantissa)
    return divided_by_power(np.where(result >= 0, result >> 15, -(-result >> 15)), -output_exponent)


def unit_vectors(x) -> np.ndarray:
    """L2Normalization of int8, from centred integers."""
    rows = []
    for row in x.reshape(-1, x.shape[-1]):
        mantissa, exponent = inverse_square_root(int((row * row).sum()))
        shifted = in_int32(row << max(exponent + 7, 0))
        rows.append(np.clip(divided_by_power(high_product(shifted, mantissa), max(-exponent - 7, 0)), -128, 127))
    return np.stack(rows).reshape(x.shape)


def inverse_square_root(number: int) -> tuple[int, int]:
    """GetInvSqrtQuantizedMultiplierExp, with the sign of its exponent turned."""
    if number <= 1:
        return LARGEST, 0
    shift = 11
    while number >= 1 << 29:
        number //= 4
        shift += 1
    pairs = (32 - number.bit_length() - 1) // 2 - 1
    shift, number = shift - pairs, number << 2 * pairs
    half = divided_by_power(np.int64(number >> 1), 1)
    x = np.int64(1 << 28)
    for _ in range(5):
        cube = times_power(high_product(high_product(x, x), x), 6)
        x = times_power(high_product((1 << 28) + (1 << 27), x) - high_product(half, cube), 3)
    x = int(high_product(x, 1518500250))
    return (x << -shift, 0) if shift < 0 else (x, -shift)
