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
_INPUT_BITS = 4  # integer bits of what LOGISTIC and TANH read
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


def exp_on_negative_values(a, integer_bits: int = _INTEGER_BITS):
    """`exp` of numbers of at most 0 with so many integer bits, in Q0.31."""
    fraction_bits = 31 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    remainder = (a & (quarter - 1)) - quarter
    x = _shift_left(remainder, integer_bits) + (1 << 28)
    square = high_product(x, x)
    cube, fourth = high_product(square, x), high_product(square, square)
    third_and_fourth = high_product(divide_by_power(fourth, 2) + cube, 715827883) + square
    constant = 1895147668  # exp(-1/8)
    result = constant + high_product(constant, x + divide_by_power(third_and_fourth, 1))
    rest = remainder - a
    # exp(-2^e) in Q0.31, for e from -2 on.
    factors = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)[: integer_bits + 2]
    for e, factor in enumerate(factors, start=-2):
        result = np.where(rest & (1 << (fraction_bits + e)), high_product(result, factor), result)
    return np.where(a == 0, _ONE, result)


def one_over_one_plus(a):
    """`1 / (1 + a)` of Q0.31 numbers in [0, 1], in Q0.31."""
    return _shift_left(_inverse(a), 1)


def _inverse(a):
    """The same in Q1.30, by three Newton steps."""
    half = (a + _ONE + 1) >> 1
    x = 1515870810 + high_product(half, -1010580540)  # 48/17 - 32/17 half
    for _ in range(3):
        x = x + _shift_left(high_product(x, (1 << 29) - high_product(half, x)), 2)
    return x


def logistic(x, scale) -> np.ndarray:
    """TFLite Micro's int8 logistic function, on the grid of 1/256 with the zero point -128.

    Args:
      x: int64, centred integers.
      scale: float32, the size of a step of `x`.
    """
    a, radius = _in_input_bits(x, scale)
    above = one_over_one_plus(exp_on_negative_values(-np.abs(a), _INPUT_BITS))
    result = np.where(a == 0, 1 << 30, np.where(a > 0, above, _ONE - above))
    return _with_ends(divide_by_power(result, 31 - 8) - 128, x, radius)


def tanh(x, scale) -> np.ndarray:
    """TFLite Micro's int8 hyperbolic tangent, on the grid of 1/128 with the zero point 0; arguments as `logistic`'s."""
    a, radius = _in_input_bits(x, scale)
    # tanh(|a|) = (1 - exp(-2 |a|)) / (1 + exp(-2 |a|)): one integer bit more doubles the argument.
    above = _shift_left(_inverse(exp_on_negative_values(-np.abs(a), _INPUT_BITS + 1)) - (1 << 29), 2)
    return _with_ends(divide_by_power(np.sign(a) * above, 31 - 7), x, radius)


def _in_input_bits(x, scale):
    """Q4.27 numbers, and from which integer on they saturate."""
    mantissa, exponent = (int(part) for part in quantize_multiplier(float(scale) * 2.0 ** (31 - _INPUT_BITS)))
    radius = int(np.floor((2**_INPUT_BITS - 1) * 2.0 ** (31 - _INPUT_BITS) / 2.0**exponent))
    clipped = np.clip(x, -radius, radius) << max(exponent, 0)
    return divide_by_power(high_product(clipped, mantissa), max(-exponent, 0)), radius


def _with_ends(levels, x, radius: int):
    return np.clip(np.where(x <= -radius, -128, np.where(x >= radius, 127, levels)), -128, 127)


def unit_vectors(x) -> np.ndarray:
    """int8 vectors of length 1 along the last axis, on the grid of 1/128 with the zero point 0.

    Args:
      x: int64 (..., n), centred integers whose squares add up to less than 2^31.
    """
    mantissa, exponent = _inverse_square_root((x * x).sum(-1, keepdims=True))
    exponent = exponent + 7
    product = high_product(x << np.maximum(exponent, 0), mantissa)
    return np.clip(divide_by_power(product, np.maximum(-exponent, 0)), -128, 127)


def _inverse_square_root(x):
    """`1 / sqrt(x)` of integers as `mantissa * 2^(exponent - 31)`; 1 for 0.

    References: TensorFlow Lite, kernels/internal/common.h, GetInvSqrtQuantizedMultiplierExp.
    """
    # To 28 or 29 bits, by an even number of places.
    pairs = (31 - np.frexp(x.astype(np.float64))[1].astype(np.int64)) // 2 - 1
    scaled, shift = np.where(pairs < 0, x >> 2, x << np.maximum(2 * pairs, 0)), 11 - pairs
    half_of_it = divide_by_power(scaled >> 1, 1)
    root = np.full_like(x, 1 << 28)
    for _ in range(5):  # Newton's, with 3 integer bits
        cube = _shift_left(high_product(high_product(root, root), root), 6)
        root = _shift_left(high_product((1 << 28) + (1 << 27), root) - high_product(half_of_it, cube), 3)
    root = high_product(root, 1518500250)  # sqrt(2) / 2
    mantissa = root << np.maximum(-shift, 0)
    return np.where(x <= 1, _ONE, mantissa), np.where(x <= 1, 0, -np.maximum(shift, 0))


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


def hard_swish(x, scale, output_scale) -> np.ndarray:
    """Output steps of `x relu6(x + 3) / 6`, in 16 bits.

    Args:
      x: int64, centred integers.
      scale: float32, the size of a step of `x`.
      output_scale: float32, the size of a step of the result.
    """
    finer = np.float32(1 / 128) * scale  # steps of x, 7 bits to the left
    wide = x << 7
    mantissa, output_exponent = _in_16_bits(finer / output_scale)
    value = _high_product_16(wide, mantissa)
    mantissa, exponent = _in_16_bits(finer / np.float32(3 / 32768))
    gate = _saturated_16(wide << max(exponent - 1, 0))
    gate = _high_product_16(gate, mantissa)
    gate = _saturated_16(gate << 1) if exponent > 0 else divide_by_power(gate, -exponent)
    product = ((gate + (1 << 15)) >> 1) * value
    return divide_by_power(np.sign(product) * (np.abs(product) >> 15), -output_exponent)


def _in_16_bits(multiplier) -> tuple[int, int]:
    mantissa, exponent = (int(part) for part in quantize_multiplier(float(multiplier)))
    return min((mantissa + (1 << 15)) >> 16, 2**15 - 1), exponent


def _high_product_16(a, b):
    product = a * b
    nudged = product + np.where(product >= 0, 1 << 14, 1 - (1 << 14))
    return np.sign(nudged) * (np.abs(nudged) >> 15)


def _saturated_16(x):
    return np.clip(x, -(2**15), 2**15 - 1)
