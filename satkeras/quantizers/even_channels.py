"""Even integers in some channels of a kernel: 7 bits on a grid of 8."""

import dataclasses
from collections.abc import Mapping

import tensorflow as tf

from satkeras._compat import keras, serializable
from satkeras.quantizers.base import Quantizer


@serializable
@dataclasses.dataclass(frozen=True)
class EvenChannelsQuantizer(Quantizer):
    """Another weight quantizer whose integers are even in some channels.

    Sums of a channel with even weights are even or odd, whatever the input, which an exporter needs where runtimes are
    to agree on them and no other scale helps.

    Forward, Q the other quantizer's result, s its step, u the weight before it is rounded:

      chosen channels    Q = 2 s round(u / 2s), within the grid
      all others         Q

    Gradient: that of the other quantizer.

    Args:
      quantizer: the other one; its grid has the zero point 0. One of odd integers loses nothing: the even ones lie as
        far apart.
      channels: the channels chosen.
      axis: of the kernel that they lie along.
    """

    quantizer: Quantizer
    channels: tuple[int, ...]
    axis: int = -1

    @property
    def num_bits(self):  # type: ignore[override]
        return self.quantizer.num_bits

    @property
    def declared_variables(self):
        return self.quantizer.declared_variables

    @property
    def ends_at_largest(self):
        return self.quantizer.ends_at_largest

    @property
    def levels(self):
        return self.quantizer.levels

    @property
    def spacing(self):
        return 1 if self.channels else self.quantizer.spacing

    @property
    def zero_point(self):
        return self.quantizer.zero_point

    def channel_axis(self, rank):
        return self.quantizer.channel_axis(rank)

    def scale(self, variables, latent=None):
        return self.quantizer.scale(variables, latent)

    def latent_of(self, weight, variables):
        return self.quantizer.latent_of(weight, variables)

    def unrounded(self, latent, variables):
        return self.quantizer.unrounded(latent, variables)

    def calibrate(self, values, variables):
        self.quantizer.calibrate(values, variables)

    def __call__(self, inputs, training, weights, **kwargs):
        quantized = self.quantizer(inputs, training, weights, **kwargs)
        even = tf.where(self._chosen(quantized), self._even(inputs, weights), quantized)
        return quantized + tf.stop_gradient(even - quantized)

    def _even(self, latent, variables: Mapping):
        rank = latent.shape.rank
        step = 2 * self.scale(variables, latent)
        axis = self.channel_axis(rank)
        if axis is not None:
            shape = [1] * rank
            shape[axis] = -1
            step = tf.reshape(step, shape)
        lowest, highest = (end // 2 if end > 0 else -(-end // 2) for end in self.levels)
        return step * tf.clip_by_value(tf.round(self.unrounded(latent, variables) / step), lowest, highest)

    def _chosen(self, kernel):
        shape = [1] * kernel.shape.rank
        shape[self.axis] = -1
        marks = [channel in self.channels for channel in range(kernel.shape[self.axis])]
        return tf.reshape(tf.constant(marks), shape)

    def get_config(self):
        quantizer = keras.utils.legacy.serialize_keras_object(self.quantizer)
        return {"quantizer": quantizer, "channels": list(self.channels), "axis": self.axis}

    @classmethod
    def from_config(cls, config):
        quantizer = keras.utils.legacy.deserialize_keras_object(config["quantizer"])
        return cls(quantizer, tuple(config["channels"]), config["axis"])
