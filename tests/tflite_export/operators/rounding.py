"""How TFLite's kernels round, in NumPy integers: written from the kernels' sources, not from the exporter's."""

import math

import numpy as np

from tflite_export.plan import Tensor


def once(total: np.ndarray, multiplier) -> np.ndarray:
    """XNNPACK's: the product in float32, to the nearest integer, ties to even."""
    multiplier = np.asarray(multiplier)
    assert multiplier.dtype == np.float32
    return np.rint(total.astype(np.float32) * multiplier).astype(np.int64)


def twice(total: np.ndarray, multiplier) -> np.ndarray:
    """gemmlowp's: MultiplyByQuantizedMultiplier, with a mantissa of 31 bits."""
    multiplier = np.asarray(multiplier)
    assert multiplier.dtype == np.float64
    mantissa, exponent = np.frompyfunc(mantissa_and_exponent, 1, 2)(multiplier)
    mantissa, exponent = np.asarray(mantissa, np.int64), np.asarray(exponent, np.int64)
    shifted = in_int32(total.astype(np.int64) << np.maximum(exponent, 0))
    return divided_by_power(high_product(shifted, mantissa), np.maximum(-exponent, 0))


def away_from_zero(values) -> np.ndarray:
    """C's `round`."""
    return np.trunc(values + np.copysign(0.5, values)).astype(np.int64)


def mantissa_and_exponent(multiplier: float) -> tuple[int, int]:
    """QuantizeMultiplier."""
    fraction, exponent = math.frexp(multiplier)
    mantissa = math.floor(fraction * 2**31 + 0.5)
    if mantissa == 2**31:
        mantissa, exponent = 2**30, exponent + 1
    return (0, 0) if exponent < -31 else (mantissa, exponent)


def high_product(a, b) -> np.ndarray:
    """SaturatingRoundingDoublingHighMul: C++'s division by 2^31 truncates."""
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    nudged = product + np.where(product >= 0, 2**30, 1 - 2**30)
    return np.minimum(np.where(nudged >= 0, nudged >> 31, -(-nudged >> 31)), 2**31 - 1)


def divided_by_power(x, exponent) -> np.ndarray:
    """RoundingDivideByPOT."""
    mask = (np.int64(1) << exponent) - 1
    return (x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0))


def in_int32(x) -> np.ndarray:
    """The same numbers; no kernel may be asked for a number that int32 wraps."""
    x = np.asarray(x, np.int64)
    assert np.abs(x).max(initial=0) < 2**31
    return x


def clamped(levels: np.ndarray, output: Tensor, activation: str = "none") -> np.ndarray:
    """Output steps from zero as int8: CalculateActivationRangeQuantized."""
    low, high = -128, 127
    if activation == "relu":
        low = output.zero_point
    if activation == "relu_n1_to_1":
        one = int(away_from_zero(np.float32(1) / output.scale))
        low, high = max(low, output.zero_point - one), min(high, output.zero_point + one)
    return np.clip(levels + output.zero_point, low, high)
