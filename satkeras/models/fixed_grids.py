"""Layers whose operators fix the grid of their results: the layers round to it, straight through."""

import tensorflow as tf

from satkeras._compat import keras, serializable
from satkeras.models.activations import Sigmoid, Tanh
from satkeras.models.inference import rounds
from satkeras.models.layers import fixed_grid


class _OnFixedGrid:
    """Rounds what the Keras layer computes; its gradient is the Keras layer's."""

    @tf.autograph.experimental.do_not_convert
    def call(self, inputs, training=None):
        if rounds(self, training):
            return self._rounded(self.unrounded(inputs))
        values = super().call(inputs)  # type: ignore[misc]
        if not training:
            return values
        return values + tf.stop_gradient(self._rounded(values) - values)

    def unrounded(self, inputs):
        """The result before it is rounded, as precise as the kernels' own."""
        return super().call(inputs)  # type: ignore[misc]

    def _rounded(self, values):
        step, zero_point = fixed_grid(self)
        levels = tf.round(tf.cast(values, tf.float32) / step)
        return tf.cast(step * tf.clip_by_value(levels, -128 - zero_point, 127 - zero_point), values.dtype)


@serializable
class GridSigmoid(_OnFixedGrid, Sigmoid):
    """The sigmoid in steps of 1/256."""

    def unrounded(self, inputs):
        # XNNPACK's own: float64 inside, so that no value falls to another step.
        power = tf.exp(tf.clip_by_value(tf.cast(inputs, tf.float64), -700.0, 700.0))
        return tf.cast(power / (1 + power), inputs.dtype)


@serializable
class GridTanh(_OnFixedGrid, Tanh):
    """The hyperbolic tangent in steps of 1/128."""

    def unrounded(self, inputs):
        return tf.cast(tf.tanh(tf.cast(inputs, tf.float64)), inputs.dtype)


@serializable
class GridSoftmax(_OnFixedGrid, keras.layers.Softmax):
    """The softmax in steps of 1/256."""


@serializable
class GridUnitNormalization(_OnFixedGrid, keras.layers.UnitNormalization):
    """Vectors of length 1 in steps of 1/128."""
