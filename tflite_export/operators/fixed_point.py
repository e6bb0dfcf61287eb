"""gemmlowp's fixed-point functions, as LiteRT's reference kernels and TFLite Micro compute them, in NumPy int64.

A number in Qm.n is an int32 whose value is `integer / 2^n`.

References:
  gemmlowp, fixedpoint/fixedpoint.h; TensorFlow Lite, kernels/internal/reference/softmax.h.
"""

import numpy as np

from tflite_export.operators.arithmetic import quantize_multiplier

# Where a sum of exponentials overflows Q12.19.
LARGEST_SUM = 512
_ONE = 2**31 - 1
_INTEGER_BITS = 5  # of a difference of logits
_SUM_BITS = 12  # of a sum of exponentials


def high_product(a, b):
    """SaturatingRoundingDoublingHighMul: `a b / 2^31`, to nearest."""
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    total = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    return np.minimum(np.where(total >= 0, total >> 31, -((-total) >> 31)), _ONE)


def divide_by_power(x, exponent):
    """RoundingDivideByPOT: `x / 2^exponent`, to nearest, ties away from zero."""
    half = (np.int64(1) << exponent) >> 1
    return np.sign(x) * ((np.abs(x) + half) >> exponent)


def _shift_left(x, exponent):
    limit = (1 << (31 - exponent)) - 1
    return np.where(x > limit, _ONE, np.where(x < -limit, -(2**31), x << exponent))


def exp_on_negative_values(a):
    """`exp` of Q5.26 numbers of at most 0, in Q0.31."""
    fraction_bits = 31 - _INTEGER_BITS
    quarter = 1 << (fraction_bits - 2)
    remainder = (a & (quarter - 1)) - quarter
    x = _shift_left(remainder, _INTEGER_BITS) + (1 << 28)
    square = high_product(x, x)
    cube, fourth = high_product(square, x), high_product(square, square)
    third_and_fourth = high_product(divide_by_power(fourth, 2) + cube, 715827883) + square
    constant = 1895147668  # exp(-1/8)
    result = constant + high_product(constant, x + divide_by_power(third_and_fourth, 1))
    rest = remainder - a
    # exp(-2^e) in Q0.31, for e from -2 on.
    for e, factor in enumerate((1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242), start=-2):
        result = np.where(rest & (1 << (fraction_bits + e)), high_product(result, factor), result)
    return np.where(a == 0, _ONE, result)


def one_over_one_plus(a):
    """`1 / (1 + a)` of Q0.31 numbers in [0, 1], in Q0.31, by three Newton steps."""
    half = (a + _ONE + 1) >> 1
    x = 1515870810 + high_product(half, -1010580540)  # 48/17 - 32/17 half
    for _ in range(3):
        x = x + _shift_left(high_product(x, (1 << 29) - high_product(half, x)), 2)
    return _shift_left(x, 1)


def softmax(x, scale) -> np.ndarray:
    """int8 softmax over the last axis, on the grid of 1/256 with the zero point -128.

    Args:
      x: int64 (..., n), int8 values.
      scale: float32, the size of a step of `x`.

    Raises:
      ValueError: a sum of exponentials reaches 512, where the kernels end their process.
    """
    mantissa, shift = quantize_multiplier(min(float(scale) * 2.0 ** (31 - _INTEGER_BITS), 2.0**31 - 1))
    lowest = -int(np.floor((2**_INTEGER_BITS - 1) * 2.0 ** (31 - _INTEGER_BITS) / 2.0 ** int(shift)))
    below = x - x.max(-1, keepdims=True)
    counted = below >= lowest
    scaled = high_product(np.where(counted, below, 0) << shift, mantissa)
    powers = np.where(counted, exp_on_negative_values(scaled), 0)
    total = np.where(counted, divide_by_power(powers, _SUM_BITS), 0).sum(-1, keepdims=True)
    if (total >= np.int64(LARGEST_SUM) << (31 - _SUM_BITS)).any():
        raise ValueError(
            "SOFTMAX: the exponentials of a row add up to 512 or more, where LiteRT's reference kernels and TFLite "
            "Micro end their process: let the model end with its logits"
        )
    bits = np.frexp(total.astype(np.float64))[1].astype(np.int64)
    headroom = 32 - bits
    inverse = one_over_one_plus((total << headroom) - 2**31)
    exponent = _SUM_BITS - headroom + 31 - 8
    product = high_product(inverse, powers)
    return np.clip(np.where(counted, divide_by_power(product, exponent) - 128, -128), -128, 127)
