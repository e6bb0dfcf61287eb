"""A tensor that takes only some integers of its grid: what an exporter may choose so that runtimes agree."""

import numpy as np
import tensorflow as tf

from satkeras._compat import serializable
from satkeras.models.core import OnItsInputsGrid
from satkeras.models.stored import grid_to_round_to


@serializable
class ChosenLevels(OnItsInputsGrid):
    """Each integer of the input's grid becomes another one, `codes`, on a grid whose step is `factor` times as large.

    Rounds at inference, and if frozen; in training it multiplies by the factor alone, as its gradient does.
    `tflite_export.portable_model` puts one before a product. It starts as the identity.
    """

    def build(self, input_shape):
        options = {"trainable": False, "experimental_autocast": False}  # no policy rounds them
        self.codes = self.add_weight(
            name="codes", shape=(256,), dtype="int32", initializer=lambda *_, **__: tf.range(-128, 128), **options
        )
        self.factor = self.add_weight(name="factor", shape=(), dtype="float64", initializer="ones", **options)
        super().build(input_shape)

    def call(self, inputs, training=None):
        grid = grid_to_round_to(self, training)
        if grid is None:
            return inputs * tf.cast(self.factor, inputs.dtype)
        step, zero_point = (tf.cast(number, tf.float64) for number in grid)
        found = tf.round(tf.cast(inputs, tf.float64) / step) + zero_point
        codes = tf.gather(self.codes, tf.cast(tf.clip_by_value(found, -128, 127), tf.int32) + 128)
        return tf.cast((tf.cast(codes, tf.float64) - zero_point) * step * self.factor, inputs.dtype)

    @property
    def keeps_integers(self) -> bool:
        """Whether each integer stays what it is, so that nothing is rounded that its input's quantizer has not."""
        return bool((self.codes.numpy() == np.arange(-128, 128)).all())

    def unrounded(self, inputs):
        """What `call` rounds."""
        return inputs * tf.cast(self.factor, inputs.dtype) if self.keeps_integers else self(inputs)

    def get_config(self):
        return {**super().get_config()}  # Keras makes one up otherwise, and fails at a precision policy
