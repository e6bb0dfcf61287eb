"""How kernels round: from an exact integer sum and a multiplier to the output's integer.

Two rules. XNNPACK rounds once, the float32 product of sum and multiplier, ties to even. gemmlowp's arithmetic, in
LiteRT's reference kernels, TFLite Micro and TOSA, rounds twice, to nearest: the upper half of a 31-bit fixed-point
product, ties up; then a shift to the right, for multipliers below a half, ties away from zero.
"""

import numpy as np
import tensorflow as tf

# Integers up to here are exact in float32, in any order of summation.
EXACT_IN_FLOAT32 = 2**24


def round_once(total, multiplier):
    """`rint(float32(total) * multiplier)`, XNNPACK's fp32 requantization; float32.

    Args:
      total: exact sums (..., channels), float32 or float64.
      multiplier: float32, a scalar or (channels,).
    """
    return tf.round(tf.cast(total, tf.float32) * opaque(multiplier, tf.float32))


def round_twice(total, multiplier):
    """`RoundingDivideByPOT(SaturatingRoundingDoublingHighMul(total, mantissa), shift)`; int64.

    Args:
      total: exact sums (..., channels), any dtype; times a multiplier of 1 or more they must fit int32.
      multiplier: float64, a scalar or (channels,).
    """
    mantissa, exponent = quantize_multiplier(multiplier)
    left, right = np.maximum(exponent, 0), np.maximum(-exponent, 0)
    total = tf.cast(total, tf.int64)
    product = tf.abs(total) * opaque(mantissa << left, tf.int64)
    # The high product rounds half away from zero above and half towards it below.
    high = tf.bitwise.right_shift(product + (1 << 30) - tf.cast(total < 0, tf.int64), tf.constant(31, tf.int64))
    level = tf.bitwise.right_shift(high + ((1 << right) >> 1), tf.cast(right, tf.int64))
    return tf.sign(total) * level


def quantize_multiplier(multiplier) -> tuple[np.ndarray, np.ndarray]:
    """A positive real multiplier as `mantissa * 2^(exponent - 31)`, int64 arrays; the mantissa has 31 bits."""
    fraction, exponent = np.frexp(np.asarray(multiplier, np.float64))
    mantissa = np.floor(fraction * 2.0**31 + 0.5).astype(np.int64)
    full = mantissa == 2**31
    mantissa, exponent = np.where(full, mantissa // 2, mantissa), np.where(full, exponent + 1, exponent)
    tiny = exponent < -31
    return np.where(tiny, 0, mantissa), np.where(tiny, 0, exponent).astype(np.int64)


def away_from_zero(values):
    """To the nearest integer, ties away from zero: C's `round`."""
    return tf.sign(values) * tf.floor(tf.abs(values) + 0.5)


def opaque(values, dtype):
    """A constant that TensorFlow's graph optimizer cannot see: it would fold a multiplier into a kernel, and round."""
    constant = tf.constant(values, dtype)
    return tf.compat.v1.placeholder_with_default(constant, constant.shape)
