"""Plain quantization (Jacob et al., CVPR 2018; arXiv:1712.05877), for everything outside a paper's method."""

import dataclasses

import numpy as np
import tensorflow as tf

from satkeras._compat import serializable
from satkeras.formulas import kernels
from satkeras.formulas.rounding import round_ste, step_size
from satkeras.quantizers.base import Quantizer, QuantizerVariable, check_num_bits
from satkeras.quantizers.quant_params import activation_levels

SMALLEST_RANGE = 2e-6  # stands for a tensor of zeros; TFLite's converter holds steps down to 1e-6 / 254
SMALLEST_WEIGHT = 1e-35


@serializable
@dataclasses.dataclass(frozen=True)
class MaxWeightQuantizer(Quantizer):
    """Symmetric weights scaled by their largest magnitude: `s round(w / s)`, `s = max|w| / n`, `n = 2^(k-1) - 1`.

    One scale per output channel of a convolution; per tensor for a dense kernel, because TFLite runtimes up to 2.9
    compute per-channel FULLY_CONNECTED wrongly.
    Gradient: straight through; the scale counts as a constant. int8 holds the grid -n .. n, int4 up to 4 bits.

    Args:
      num_bits: 2 to 8, or None (no quantization).
      depthwise: whether the kernel is a depthwise one, (h, w, channels, 1), whose channels are axis 2.
      transposed: whether it is a transposed convolution's, (h, w, out, in).

    References:
      Jacob et al. 2018, section 3.
    """

    num_bits: int | None = 8
    depthwise: bool = False
    transposed: bool = False

    def __post_init__(self):
        check_num_bits(self)

    @property
    def levels(self):
        top = 2 ** (self.require_rounding() - 1) - 1
        return -top, top

    def channel_axis(self, rank):
        if rank < 4:
            return None
        return 2 if self.depthwise or self.transposed else 3

    def scale(self, variables, latent=None):
        rank = len(latent.shape)
        axes = [axis for axis in range(rank) if axis != self.channel_axis(rank)]
        largest = tf.reduce_max(tf.abs(tf.stop_gradient(tf.cast(latent, tf.float32))), axes)
        # A step below float32's normal numbers would be no step at all.
        return step_size(tf.where(largest > SMALLEST_WEIGHT, largest, tf.ones_like(largest)), self.levels)

    def __call__(self, inputs, training, weights, **kwargs):
        latent = tf.cast(inputs, tf.float32)
        if self.num_bits is None:
            return latent
        scale = self.scale(weights, latent)
        if self.depthwise or self.transposed:
            scale = scale[:, None]
        return round_ste(latent / scale) * scale


@serializable
@dataclasses.dataclass(frozen=True)
class MovingRangeQuantizer(Quantizer):
    """Activations scaled by a moving average of their largest magnitude.

    Forward: clip to [0, r] or [-r, r] and round to `2^k - 1` (signed: `2^(k-1) - 1` a side) steps; r is the moving
    average of `max|x|` over the training batches. Before the first of them, r is that of the batch at hand. In
    training r is at least that of the batch: the average lags behind a network that grows, and would clip it.
    Gradient: 1 in training, where all values lie inside the range; otherwise 1 inside and 0 outside; none for r.
    int8 holds every width.

    Args:
      num_bits: 2 to 8, or None (placement then leaves the tensor alone).
      signed: whether the tensor has negative values. If not, they are clipped, and training passes their gradient on.
      decay: weight of the past in the moving average; 0.99 forgets half in 69 steps.

    References:
      Jacob et al. 2018, section 3.1.
    """

    num_bits: int | None = 8
    signed: bool = False
    decay: float = 0.99

    def __post_init__(self):
        check_num_bits(self)
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must lie in [0, 1). Received: decay={self.decay!r}")

    @property
    def levels(self):
        return activation_levels(self.require_rounding(), self.signed)

    @property
    def declared_variables(self):
        return (QuantizerVariable("range", "range", learned=False, from_data=True),)

    @property
    def keeps_input(self):
        return False

    def __call__(self, inputs, training, weights, **kwargs):
        x = tf.cast(inputs, tf.float32)
        largest = self._tracked(x, weights["range"]) if training else self._known(x, weights["range"])
        rounded = kernels.round_inside if training else kernels.clip_and_round
        return rounded(x, _usable(largest), self.levels)

    def calibrate(self, values, variables):
        variables["range"].assign(max(float(np.abs(values).max()), SMALLEST_RANGE))

    def _tracked(self, x, variable):
        # Above zero even for a tensor of zeros: a range of zero means that no batch was seen.
        seen = tf.maximum(self._largest(x), SMALLEST_RANGE)
        past = tf.convert_to_tensor(variable)
        updated = tf.where(past > SMALLEST_RANGE, self.decay * past + (1 - self.decay) * seen, seen)
        variable.assign(updated)
        return tf.maximum(updated, seen)

    def _known(self, x, variable):
        past = tf.convert_to_tensor(variable)
        return tf.cond(past > 0, lambda: past, lambda: self._largest(x))

    def _largest(self, x):
        x = tf.stop_gradient(x)
        # Not max|x|, which would make a copy of the tensor.
        return tf.maximum(tf.reduce_max(x), -tf.reduce_min(x)) if self.signed else tf.reduce_max(x)

    def scale(self, variables, latent=None):
        return step_size(_usable(tf.convert_to_tensor(variables["range"])), self.levels)


def _usable(largest):
    """The range; 1 for a tensor of zeros, which any range holds: a tiny one has no multiplier in the file."""
    return tf.where(largest > SMALLEST_RANGE, largest, 1.0)


@serializable
@dataclasses.dataclass(frozen=True)
class InputQuantizer(Quantizer):
    """The model's input as 8-bit codes: 256 steps from `low` to `high`, code 0 at `low`.

    Forward: round to the nearest code. Gradient: 1 inside the range, 0 outside.

    A training batch that is plainly in other units (outside the range, or fractions of one step) stops the training
    with an error, where the graph can raise one (not under XLA).

    Args:
      low: the real value of code 0; at most 0.
      high: the real value of code 255; at least 0.

    Raises:
      ValueError: 0.0 is not one of the 256 codes, so that zero padding would have no code.

    References:
      SAT's authors feed the image as 0 .. 255, unnormalized; -1 .. 127/128 is the customary range of Coral models.
    """

    low: float = 0.0
    high: float = 255.0
    num_bits: int = dataclasses.field(default=8, init=False)

    def __post_init__(self):
        if not (
            np.isfinite(self.low) and np.isfinite(self.high) and self.low <= 0 <= self.high and self.low < self.high
        ):
            raise ValueError(f"input_range must be (low, high) with low <= 0 <= high. Received: {self._range}")
        exact = -self.low / self._scale
        if abs(exact - round(exact)) > 1e-3:
            nearest = tuple(float((end - round(exact)) * self._scale) for end in (0, 255))
            raise ValueError(
                f"0.0 must be one of the 256 codes of input_range, and would be code {exact:g}. Received: "
                f"{self._range}. The nearest range with as large a step: {nearest}; Coral's: (-1, 127/128)"
            )

    @property
    def _range(self):
        return self.low, self.high

    @property
    def _scale(self):
        return (self.high - self.low) / 255

    def __call__(self, inputs, training, weights, **kwargs):
        x = tf.cast(inputs, tf.float32)
        low, high = ((code - self.zero_point) * self._scale for code in self.levels)
        if training:
            with tf.control_dependencies(self._unit_checks(x)):
                x = tf.identity(x)
        return kernels.fake_quantize(x, low, high, 255)

    def _unit_checks(self, x):
        smallest, largest = tf.reduce_min(x), tf.reduce_max(x)
        hint = f"input_range={self._range}: pass the range of your images to quantize_model(..., input_range=)"
        inside = (smallest >= self.low - self._scale) & (largest <= self.high + self._scale)
        steps = x / self._scale
        off_codes = tf.reduce_max(tf.abs(steps - tf.round(steps))) > 0.01
        span = largest - smallest
        # A constant batch says nothing about units.
        too_small = (span > 0) & (span <= 2 * self._scale) & off_codes
        return [
            tf.debugging.Assert(inside, [f"The input lies outside {hint}. Smallest, largest:", smallest, largest]),
            tf.debugging.Assert(~too_small, [f"The input spans a step or two of {hint}. Range:", smallest, largest]),
        ]

    @property
    def levels(self):
        return 0, 255

    @property
    def zero_point(self):
        return round(-self.low / self._scale)

    def scale(self, variables, latent=None):
        return tf.constant(self._scale, tf.float32)

    def get_config(self):
        return {"low": self.low, "high": self.high}
