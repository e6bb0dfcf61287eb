"""The model's input as 8-bit codes, and what tells that it is in other units."""

import dataclasses
import sys

import numpy as np
import tensorflow as tf

from satkeras._compat import in_xla, serializable
from satkeras.formulas import kernels
from satkeras.quantizers.base import Quantizer, QuantizerVariable

# Beyond this mean distance from the range, as a share of the values' own span, they are in other units; augmentation
# stays far below it, and images in any other customary range above.
FAR = 1 / 16
OFF_CODE = 0.01  # in steps: more than float32 makes of a whole pixel


@serializable
@dataclasses.dataclass(frozen=True)
class InputQuantizer(Quantizer):
    """The model's input as 8-bit codes: 256 steps from `low` to `high`, code 0 at `low`.

    Forward, `s = (high - low) / 255`: the nearest code p of `(x - low) / s`, as the real value `s (p - zero_point)`.
    The zero point is the whole number next to `-low / s`. Where that is no whole number, as for -1 .. 1, what the model
    computes with is the input less `shift`, half a step at most: in training, in the twin and in the file alike.
    Gradient: 1 inside the range, 0 outside.

    Every training batch is looked at. One that is plainly in other units, or not finite, stops the training with an
    error; under XLA, which has none, it becomes NaN, and so does the loss. Single values outside the range are clipped,
    counted in the variable `strays`, and reported once.

    Args:
      low: the real value of code 0; at most 0.
      high: the real value of code 255; at least 0.

    Raises:
      ValueError: 0.0, with which convolutions pad, does not lie within the range.

    References:
      SAT's authors feed the image as 0 .. 255, unnormalized; -1 .. 127/128 is the customary range of Coral models,
      -1 .. 1 that of Keras' MobileNets.
    """

    low: float = 0.0
    high: float = 255.0
    num_bits: int = dataclasses.field(default=8, init=False)

    def __post_init__(self):
        if not (
            np.isfinite(self.low) and np.isfinite(self.high) and self.low <= 0 <= self.high and self.low < self.high
        ):
            raise ValueError(f"input_range must be (low, high) with low <= 0 <= high. Received: {self._range}")

    @property
    def _range(self):
        return self.low, self.high

    @property
    def _scale(self):
        return (self.high - self.low) / 255

    @property
    def shift(self):
        shift = self.low + self.zero_point * self._scale
        return shift if abs(shift) > 1e-3 * self._scale else 0.0

    @property
    def marks_problems(self):
        return True

    @property
    def declared_variables(self):
        return (QuantizerVariable("strays", "count", 0, learned=False, dtype="int64"),)

    def __call__(self, inputs, training, weights, **kwargs):
        x = tf.cast(inputs, tf.float32)
        low, high = ((code - self.zero_point) * self._scale for code in self.levels)
        if training:
            problems = self._problems(x)
            if not in_xla():
                checks = [tf.debugging.Assert(~found, [message, *facts]) for message, found, facts in problems]
                with tf.control_dependencies([check for check in checks if check is not None]):
                    x = tf.identity(x)
            self._count_strays(x, weights.get("strays"))
        y = kernels.fake_quantize(x - self.shift if self.shift else x, low, high, 255)
        if training and in_xla():
            wrong = tf.reduce_any([found for _, found, _ in problems])
            y = tf.where(wrong, np.float32(np.nan), y)
        return y

    def problem_of(self, values: np.ndarray) -> str | None:
        """What is wrong with a batch of real values, found as in training; None if nothing is."""
        for message, found, facts in self._problems(tf.constant(values, tf.float32)):
            if bool(found):
                return " ".join([message, *(one if isinstance(one, str) else f"{float(one):g}" for one in facts)])
        return None

    def strays_of(self, values) -> tf.Tensor:
        """How many real values lie more than a step outside the range."""
        outside = (values < self.low - self._scale) | (values > self.high + self._scale)
        return tf.reduce_sum(tf.cast(outside, tf.int64))

    def _problems(self, x):
        """(message, whether it is so, numbers for the message) of everything that a batch can have."""
        smallest, largest = tf.reduce_min(x), tf.reduce_max(x)
        span = largest - smallest
        hint = f"input_range={self._range}: pass the range of your images to quantize_model(..., input_range=)"
        codes = (x - self.low) / self._scale
        distance = tf.abs(codes - tf.round(codes))
        # A constant batch says nothing about units.
        too_small = (span > 0) & (span <= 2 * self._scale) & (tf.reduce_max(distance) > OFF_CODE)
        midway = (span > 2 * self._scale) & (tf.reduce_min(distance) > 0.5 - OFF_CODE)
        moved = tuple(float(end + self._scale / 2) for end in self._range)
        outside = (smallest < self.low - self._scale) | (largest > self.high + self._scale)
        beyond = tf.cond(
            outside, lambda: tf.reduce_mean(tf.abs(x - tf.clip_by_value(x, self.low, self.high))), lambda: 0.0
        )
        facts = [smallest, "to", largest]
        return (
            (f"The input must be finite, within {hint}. Received NaN or infinity.", ~tf.math.is_finite(span), []),
            (f"The input must lie within {hint}. Received: values from", beyond > FAR * span, facts),
            (f"The input must not span a step or two of {hint}. Received: values from", too_small, facts),
            (
                f"The input must not lie midway between two codes of input_range={self._range}: pass "
                f"input_range={moved}. Received: values from",
                midway,
                facts,
            ),
        )

    def _count_strays(self, x, strays) -> None:
        if strays is None:  # not built into a layer
            return
        found = self.strays_of(x)
        if not in_xla():
            text = f"satkeras: the input has values outside input_range={self._range}; they are clipped. In this batch:"
            first = tf.equal(tf.convert_to_tensor(strays), 0) & (found > 0)
            tf.cond(first, lambda: tf.print(text, found, output_stream=sys.stderr), lambda: tf.no_op())
        strays.assign_add(found)

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
