"""Quantization Networks (Yang et al., CVPR 2019): quantization as a learned sum of sigmoids that become steps."""

import dataclasses

import numpy as np
import tensorflow as tf

from satkeras._compat import serializable
from satkeras.formulas import clustering
from satkeras.quantizers.integer_arithmetic import MaxWeightQuantizer, MovingRangeQuantizer
from satkeras.quantizers.quant_params import activation_levels
from satkeras.quantizers.staircases import StepQuantizer

LEVEL_SETS: dict[int | str, tuple[int, ...]] = {
    1: (-1, 1),
    "ternary": (-1, 0, 1),
    "3bit+-2": (-2, -1, 0, 1, 2),
    "3bit+-4": (-4, -2, -1, 0, 1, 2, 4),
}


@serializable
@dataclasses.dataclass(frozen=True)
class QuantizationNetworksWeightQuantizer(StepQuantizer):
    """Weights on a few integer levels times alpha, by sigmoids in training and unit steps in inference.

    Forward, with levels `Y_0 < ... < Y_n`, `s_i = Y_i - Y_(i-1)` and thresholds `b_i`:

      training   alpha (Y_0 + sum_i s_i sigma(T (beta w - b_i)))
      inference  alpha (Y_0 + sum_i s_i [beta w >= b_i])

    Gradient: the derivative of the training formula, for w, alpha, beta and (if they learn) the thresholds, see
    `kernels.soft_staircase`. alpha and beta are one number a layer. Theirs and the thresholds' gradients, sums over N
    weights, are divided by sqrt(N p), p the largest level: without that, which the paper does not have, any learning
    rate that moves the weights throws alpha about (LSQ, section 2.2). The temperature T is a variable of the layer that
    `satkeras.callbacks` raises; without a callback it is 10.

    At first `beta = 5 p / (4 q)` with p the largest level and q the largest weight, thresholds from k-means of
    `beta w`, those next to zero at `zero_edge`, and alpha the least squares fit to the weights (the paper has
    `1 / beta`, which is farther from a pretrained network); `quantize_model` sets them.

    Integer grid: the levels times alpha, within -15 .. 15. int8 holds all; int4 all but 5 bits.

    Args:
      num_bits: the levels. 1: -1, 1; "ternary" or 2: -1, 0, 1; "3bit+-2": -2 .. 2; "3bit+-4": -4, -2, -1, 0, 1, 2, 4;
        3 to 5: -n .. n with n = 2^(k-1) - 1. 8: plain 8 bits, a `MaxWeightQuantizer` takes its place; None: full
        precision.
      learn_thresholds: whether the thresholds train; the paper's experiments keep them.
      gradient_temperature: the highest temperature that the gradient follows; above it the derivative is that of the
        wider sigmoid. None for the exact derivative, which vanishes at high temperatures.
      zero_edge: the thresholds next to zero are at plus and minus this at first, 0.05 in the paper; None: where k-means
        puts them, which makes more weights zero.

    Raises:
      TypeError, ValueError: num_bits, gradient_temperature or zero_edge is not one of these.

    References:
      Quantization Networks, eq. 5, 7 and section 3.3; eq. 8, 10, 11 with their misprints put right. The divisor: LSQ,
      arXiv:1902.08153.
    """

    num_bits: int | str | None = "ternary"  # type: ignore[assignment]
    zero_edge: float | None = 0.05

    def __post_init__(self):
        super().__post_init__()
        edge = self.zero_edge
        if edge is not None and not (np.isfinite(edge) and edge > 0):
            raise ValueError(f"zero_edge must be positive, or None for that of k-means. Received: zero_edge={edge!r}")
        names = tuple(name for name in LEVEL_SETS if isinstance(name, str))
        _check_num_bits(self, (*range(1, 6), 8, *names))

    @property
    def level_set(self):
        if self.num_bits in LEVEL_SETS:
            return LEVEL_SETS[self.num_bits]
        top = 2 ** (_own_width(self) - 1) - 1
        return tuple(range(-top, top + 1))

    @property
    def width(self):
        if isinstance(self.num_bits, str):
            return 2 if self.num_bits == "ternary" else 3
        return self.num_bits

    def specialized(self, **facts):
        pattern = MaxWeightQuantizer(8) if self.num_bits == 8 else super()
        return pattern.specialized(**facts)

    def count(self, x):
        return tf.size(x)

    def thresholds_of(self, scaled):
        return clustering.weight_thresholds(scaled, self.level_set, self.zero_edge)


@serializable
@dataclasses.dataclass(frozen=True)
class QuantizationNetworksActivationQuantizer(StepQuantizer):
    """Activations on the integer levels 0 .. 2^k - 1 times alpha, behind a ReLU, with thresholds of their own.

    Forward, with `n = 2^k - 1` thresholds `b_i`:

      training   alpha sum_i sigma(T (beta x - b_i))
      inference  alpha sum_i [beta x >= b_i]

    Gradient: the derivative of the training formula, as for the weights, with N the values of one example.

    At first `beta = 5 n / (4 q)` with q the largest value, thresholds from k-means of `beta x`, alpha the best fit;
    `satkeras.set_thresholds` sets them from images.

    The thresholds are not evenly spaced, so the tensor is stored at 8 bits first and quantized from there: on 8-bit
    values any thresholds are thresholds between two of 256 codes, and the exporter makes a step operator of each.

    Integer grid: 0 .. 2^k - 1. int8 holds it; int4 up to 3 bits.

    Args:
      num_bits: 1 to 4. 8: plain 8 bits, a `MovingRangeQuantizer` takes its place, as it does for a tensor with negative
        values, which the levels cannot stand for; None: full precision (placement then leaves the tensor alone).
      learn_thresholds: whether the thresholds train; the paper's experiments keep them.
      gradient_temperature: the highest temperature that the gradient follows; above it the derivative is that of the
        wider sigmoid. None for the exact derivative, which vanishes at high temperatures.

    Raises:
      TypeError, ValueError: num_bits or gradient_temperature is not one of these.

    References:
      Quantization Networks, eq. 12 and section 3.3.
    """

    num_bits: int | None = 2  # type: ignore[assignment]

    def __post_init__(self):
        super().__post_init__()
        _check_num_bits(self, (*range(1, 5), 8))

    @property
    def level_set(self):
        lowest, highest = activation_levels(_own_width(self), signed=False)
        return tuple(range(lowest, highest + 1))

    @property
    def reads_8_bits(self):
        return True

    def specialized(self, **facts):
        plain = self.num_bits == 8 or (self.num_bits is not None and facts.get("signed", False))
        pattern = MovingRangeQuantizer(8) if plain else super()
        return pattern.specialized(**facts)

    def count(self, x):
        return tf.size(x) / tf.shape(x)[0]

    def thresholds_of(self, scaled):
        return clustering.activation_thresholds(scaled, self.level_set)


def _own_width(quantizer: StepQuantizer) -> int:
    bits = quantizer.require_rounding()
    if bits == 8:
        raise ValueError(
            f"{type(quantizer).__name__} has no levels at 8 bits: quantize_model puts another in its place"
        )
    return bits


def _check_num_bits(quantizer: StepQuantizer, known: tuple) -> None:
    bits, name = quantizer.num_bits, type(quantizer).__name__
    if bits is None:
        return
    if isinstance(bits, bool) or not isinstance(bits, (int, str)):
        raise TypeError(f"{name} needs num_bits of {known} or None (full precision). Received: num_bits={bits!r}")
    if bits not in known:
        raise ValueError(
            f"{name} works with num_bits of {known} or None. Received: num_bits={bits!r}. For other widths choose "
            "another scheme, for single layers by overrides="
        )
