"""The rules by which runtimes round a weighted sum to a level, each a pure function of integer sums and a multiplier.

| rule | who |
|---|---|
| `single` | LiteRT's default, XNNPACK: a float32 product, ties to even |
| `double` | LiteRT's reference kernels, TFLite Micro, TOSA: rounded to 31 bits, then shifted, ties away from zero |
| `upward` | LiteRT's builtin kernels, in vectors: the same, ties of the shift towards plus infinity |
| `half_up` | one rounding in fixed point, ties up: XNNPACK's MUL on Arm, builds of a single rounding |
| `away` | LiteRT's reference FULLY_CONNECTED: a float64 product, ties away from zero |

Every rule is a non-decreasing function of the sum. No runtime rounds otherwise than by one of them as far as they were
compared; `single` is asked with the multipliers one float32 step above and below, for what computes them otherwise.

References:
  gemmlowp, fixedpoint.h; XNNPACK, src/qs8-requantization; LiteRT, kernels/internal/common.h.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from tflite_export.operators.arithmetic import quantize_multiplier


@dataclasses.dataclass(frozen=True, eq=False)
class Scales:
    """What a kernel makes its multiplier of, in float32.

    Attributes:
      input: the size of a step of the input, or of one factor; a scalar.
      weight: the size of a step of the weights, or of the other factor; broadcasts against the sums.
      output: the size of a step of the output; a scalar.
      one_product: whether some kernels multiply the first two in float32, as FULLY_CONNECTED with one weight scale.
    """

    input: np.float32
    weight: np.ndarray
    output: np.float32
    one_product: bool = False

    @property
    def float32(self) -> np.ndarray:
        """The multiplier as XNNPACK computes it."""
        return np.float32(self.input) * np.asarray(self.weight, np.float32) / np.float32(self.output)

    @property
    def exact(self) -> np.ndarray:
        """float64, as the kernels that round in fixed point compute it."""
        return np.float64(self.input) * np.asarray(self.weight, np.float64) / np.float64(self.output)

    @property
    def of_one_product(self) -> np.ndarray:
        """float64, from the product in float32."""
        return (np.float32(self.input) * np.asarray(self.weight, np.float32)).astype(np.float64) / np.float64(
            self.output
        )


def single(sums: np.ndarray, multiplier: np.ndarray) -> np.ndarray:
    """`rint(float32(sum) * multiplier)`; the multiplier is float32."""
    return np.rint(sums.astype(np.float32) * multiplier)


def away(sums: np.ndarray, multiplier: np.ndarray) -> np.ndarray:
    """`round(sum * multiplier)` in float64, C's `round`."""
    product = sums * multiplier
    return np.trunc(product + np.copysign(0.5, product))


def double(sums: np.ndarray, multiplier: np.ndarray) -> np.ndarray:
    """`RoundingDivideByPOT(SaturatingRoundingDoublingHighMul(sum, mantissa), shift)`."""
    high, right = _high_product(sums, multiplier)
    return _shifted_away(high, right)


def upward(sums: np.ndarray, multiplier: np.ndarray) -> np.ndarray:
    """As `double`, but ties of the shift go up."""
    high, right = _high_product(sums, multiplier)
    return _shifted_up(high, right)


def half_up(sums: np.ndarray, multiplier: np.ndarray) -> np.ndarray:
    """`floor(sum * mantissa / 2^shift + 1/2)`: one rounding of the 31-bit fixed-point product."""
    mantissa, exponent = quantize_multiplier(multiplier)
    return _once(sums * mantissa, exponent)


def _high_product(sums, multiplier):
    """The sum times the mantissa, rounded to whole units of 2^exponent, and how far it is shifted to the right."""
    mantissa, exponent = quantize_multiplier(multiplier)
    product = (sums << np.maximum(exponent, 0)) * mantissa
    return (product + (1 << 30)) >> 31, np.maximum(-exponent, 0)


def _shifted_up(high, right):
    return (high + ((np.int64(1) << right) >> 1)) >> right


def _shifted_away(high, right):
    # Without a shift there is no tie, and nothing to take from a negative number.
    return (high + ((np.int64(1) << right) >> 1) - ((high < 0) & (right > 0))) >> right


def _once(product, exponent):
    right = 31 - exponent
    return (product + (np.int64(1) << (right - 1))) >> right


def levels_under_all_rules(sums: np.ndarray, scales: Scales) -> Iterator[np.ndarray]:
    """The levels, whole output steps from the zero point, that each rule makes of the sums.

    Args:
      sums: int64, the bias included; times a multiplier of 1 or more they must fit int32.
      scales: of shapes that broadcast against the sums.
    """
    float32 = scales.float32
    # What the multiplier itself makes lies between these two, since the product rises with it.
    for neighbour in (np.float32(0), np.float32(np.inf)):
        yield single(sums, np.nextafter(float32, neighbour))
    yield away(sums, scales.exact)
    for multiplier in (scales.exact, scales.of_one_product)[: 2 if scales.one_product else 1]:
        high, right = _high_product(sums, multiplier)
        yield _shifted_up(high, right)
        yield _shifted_away(high, right)
        yield half_up(sums, multiplier)


# In levels, of 256 at most: float32 errs by less, a multiplier one step off included.
_FLOAT32_ERROR = 2.0**-12


def disagree(sums: np.ndarray, scales: Scales, lowest: int, highest: int) -> np.ndarray:
    """Where two rules part.

    A sum farther than `m + 2^-12` levels from every tie gets one level from all of them, since none errs by so much:
    rounding to 31 bits first errs by half a unit 2^e <= 2 m, float32 by 2^-21 of a number below 2^9. The others are
    asked.

    Args:
      sums: as for `levels_under_all_rules`.
      scales: the same.
      lowest: the lowest level that the kernel's clamp lets through.
      highest: the highest.

    Returns:
      bool, of the sums' shape.
    """
    parted = np.zeros(sums.shape, bool)
    places = np.flatnonzero(_near_a_tie(sums, scales))
    first, *others = (np.clip(found, lowest, highest) for found in levels_under_all_rules(*_at(places, sums, scales)))
    parted.flat[places] = np.any([first != levels for levels in others], axis=0)
    return parted


def _near_a_tie(sums: np.ndarray, scales: Scales) -> np.ndarray:
    multiplier = scales.exact
    product = sums * multiplier
    product -= np.floor(product)
    product -= 0.5
    return np.abs(product, out=product) <= multiplier + _FLOAT32_ERROR


def _at(places: np.ndarray, sums: np.ndarray, scales: Scales) -> tuple[np.ndarray, Scales]:
    """Some of the sums, by their places in the flat array, and the scales of each."""
    weight = np.broadcast_to(scales.weight, sums.shape).flat[places]
    return sums.flat[places], dataclasses.replace(scales, weight=weight)
