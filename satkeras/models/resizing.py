"""Bilinear enlargement that predicts as the file does: on the grid of what it enlarges."""

import tensorflow as tf

from satkeras._compat import serializable
from satkeras.models.core import BilinearUpSampling2D
from satkeras.models.stored import grid_to_round_to


@serializable
class GridBilinearUpSampling2D(BilinearUpSampling2D):
    """At inference, and if frozen, rounded to the grid of its input, ties up, as XNNPACK's RESIZE_BILINEAR does."""

    @tf.autograph.experimental.do_not_convert
    def call(self, inputs, training=None):
        grid = grid_to_round_to(self, training)
        if grid is None:
            return super().call(inputs)
        step, _ = grid
        levels = tf.floor(super().call(tf.round(tf.cast(inputs, tf.float32) / step)) + 0.5)
        return tf.cast(step * levels, inputs.dtype)
