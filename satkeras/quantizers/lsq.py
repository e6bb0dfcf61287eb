"""Learned Step Size Quantization (Esser et al., ICLR 2020; arXiv:1902.08153)."""

import abc
import dataclasses

import tensorflow as tf

from satkeras._compat import serializable
from satkeras.quantizers.base import Quantizer, QuantizerVariable, check_num_bits

SMALLEST_STEP = 1e-8


def lsq(v, step, levels, gradient_scale):
    """Divide by a learned step, clip to the levels, round, multiply by the step (LSQ, eq. 1-2).

    Gradients, g being the incoming one, `r = v / step` and `qmin < r < qmax` the inside (LSQ, eq. 3 and 5):

      dv     = g inside, 0 elsewhere, edges included
      dstep  = gradient_scale sum(g (round(r) - r) inside, g qmin where r <= qmin, g qmax where r >= qmax)

    Args:
      v: float32 tensor.
      step: scalar tensor. Below `SMALLEST_STEP` that takes its place; the gradient passes straight through.
      levels: `(qmin, qmax)`, the integers of the grid.
      gradient_scale: factor of the step's gradient.
    """
    lowest, highest = map(float, levels)

    @tf.custom_gradient
    def forward(v, step):
        positive = tf.maximum(step, SMALLEST_STEP)
        integers = tf.round(tf.clip_by_value(v / positive, lowest, highest))

        def gradient(g):
            # A graph would otherwise keep more than v for the backward pass.
            with tf.control_dependencies([g]):
                ratio = tf.identity(v) / positive
            inside = (ratio > lowest) & (ratio < highest)
            levels = tf.round(tf.clip_by_value(ratio, lowest, highest))
            slope = tf.where(inside, levels - ratio, levels)
            return tf.where(inside, g, tf.zeros_like(g)), gradient_scale * tf.reduce_sum(g * slope)

        return integers * positive, gradient

    return forward(v, step)


@dataclasses.dataclass(frozen=True)
class LSQQuantizer(Quantizer):
    """A grid whose step is learned, one for the tensor; what the weight and the activation quantizer have in common."""

    num_bits: int | None = 4

    def __post_init__(self):
        check_num_bits(self)

    @property
    def declared_variables(self):
        return () if self.num_bits is None else (QuantizerVariable("step", "step", from_data=True),)

    @abc.abstractmethod
    def count(self, v):
        """The paper's N: how many values of the tensor the step acts on."""

    def start(self, v):
        """The step to begin with: `2 mean|v| / sqrt(Q_P)`, v without what the lowest level 0 clips.

        1 for a tensor of zeros, which any step holds.
        """
        lowest, highest = self.levels
        step = 2 * tf.reduce_mean(tf.abs(v) if lowest < 0 else tf.nn.relu(v)) / highest**0.5
        return tf.where(step > SMALLEST_STEP, step, 1.0)

    def calibrate(self, values, variables):
        if self.num_bits is not None:
            variables["step"].assign(self.start(tf.constant(values, tf.float32)))

    def __call__(self, inputs, training, weights, **kwargs):
        v, variable = tf.cast(inputs, tf.float32), weights["step"]
        known = tf.convert_to_tensor(variable)
        step = tf.cond(known == 0, lambda: self.start(tf.stop_gradient(v)), lambda: tf.identity(known))
        if training:
            variable.assign(step)
            step = tf.convert_to_tensor(variable)
        scale = tf.math.rsqrt(tf.cast(self.count(v), tf.float32) * self.levels[1])  # pyright: ignore[reportCallIssue]
        return lsq(v, step, self.levels, scale)

    def scale(self, variables, latent=None):
        return tf.maximum(tf.convert_to_tensor(variables["step"]), SMALLEST_STEP)


@serializable
@dataclasses.dataclass(frozen=True)
class LSQWeightQuantizer(LSQQuantizer):
    """Weights on a grid whose step s is learned, one for the kernel.

    Forward: `s round(clip(w / s, -Q_N, Q_P))`, `Q_N = 2^(k-1)`, `Q_P = 2^(k-1) - 1`.

    Gradient: w's is 1 where `-Q_N < w / s < Q_P`, 0 elsewhere. s's is the sum of the incoming gradient times
    `round(w / s) - w / s` there, `-Q_N` below and `Q_P` above, divided by `sqrt(N Q_P)` for N weights.

    At first `s = 2 mean|w| / sqrt(Q_P)` of the latent weight; `quantize_model` sets it, or else the first training
    batch.

    Integer grid: -Q_N .. Q_P. int8 holds every width, int4 up to 4 bits, int2 2 bits.

    Args:
      num_bits: 2 to 8, or None (no quantization).

    Raises:
      TypeError, ValueError: num_bits is not one of these.

    References:
      LSQ, eq. 1-3, 5 and sections 2.1, 2.2.
    """

    @property
    def levels(self):
        top = 2 ** (self.require_rounding() - 1) - 1
        return -top - 1, top

    def count(self, v):
        return tf.size(v)

    def __call__(self, inputs, training, weights, **kwargs):
        if self.num_bits is None:
            return tf.cast(inputs, tf.float32)
        return super().__call__(inputs, training, weights, **kwargs)


@serializable
@dataclasses.dataclass(frozen=True)
class LSQActivationQuantizer(LSQQuantizer):
    """Activations on a grid whose step s is learned, one for the tensor.

    Forward: `s round(clip(x / s, -Q_N, Q_P))`; unsigned `Q_N = 0`, `Q_P = 2^k - 1`; signed `Q_N = 2^(k-1)`,
    `Q_P = 2^(k-1) - 1`.

    Gradient: x's is 1 where `-Q_N < x / s < Q_P`, 0 elsewhere. s's is the sum of the incoming gradient times
    `round(x / s) - x / s` there, `-Q_N` below and `Q_P` above, divided by `sqrt(N Q_P)` for N values of one example.

    At first `s = 2 mean|x| / sqrt(Q_P)`, for unsigned levels of `max(x, 0)`: of the calibration data or else, as in the
    paper, of the first training batch.

    Integer grid: -Q_N .. Q_P. int8 holds every width; int4 up to 3 bits unsigned, 4 signed; int2 2 bits signed.

    Args:
      num_bits: 2 to 8, or None (placement then leaves the tensor alone).
      signed: whether the tensor has negative values.

    Raises:
      TypeError, ValueError: num_bits is not one of these.

    References:
      LSQ, eq. 1-3, 5 and sections 2.1, 2.2.
    """

    signed: bool = False

    @property
    def levels(self):
        bits = self.require_rounding()
        return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if self.signed else (0, 2**bits - 1)

    @property
    def replaces_relu(self):
        return not self.signed

    def count(self, v):
        return tf.size(v) / tf.shape(v)[0]
