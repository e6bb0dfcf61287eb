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

    References:
      Jacob et al. 2018, section 3.
    """

    num_bits: int | None = 8
    depthwise: bool = False

    def __post_init__(self):
        check_num_bits(self)

    @property
    def levels(self):
        top = 2 ** (self.require_rounding() - 1) - 1
        return -top, top

    def channel_axis(self, rank):
        if rank < 4:
            return None
        return 2 if self.depthwise else 3

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
        if self.depthwise:
            scale = scale[:, None]
        return round_ste(latent / scale) * scale


@serializable
@dataclasses.dataclass(frozen=True)
class MovingRangeQuantizer(Quantizer):
    """Activations scaled by a moving average of their largest magnitude.

    Forward: clip to [0, r] or [-r, r] and round to `2^k - 1` (signed: `2^(k-1) - 1` a side) steps; r is the moving
    average of `max|x|` over the training batches, on all replicas together. Before the first of them, r is that of the
    batch at hand. In training r is at least that of the batch: the average lags behind a network that grows, and would
    clip it.
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
        seen = tf.maximum(_of_all_replicas(self._largest(x)), SMALLEST_RANGE)
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


def _of_all_replicas(largest):
    """The largest of what the replicas of a distributed training step have, so that they keep one range."""
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return largest
    return tf.reduce_max(replica.all_gather(largest[None], axis=0))


def _usable(largest):
    """The range; 1 for a tensor of zeros, which any range holds: a tiny one has no multiplier in the file."""
    return tf.where(largest > SMALLEST_RANGE, largest, 1.0)
