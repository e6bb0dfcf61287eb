"""Bilinear enlargement that predicts as the file does: on the grid of what it enlarges."""

import tensorflow as tf

from satkeras._compat import first_call, float32_variables, serializable
from satkeras.models.core import BilinearUpSampling2D
from satkeras.models.stored import stored_grid


@serializable
class GridBilinearUpSampling2D(BilinearUpSampling2D):
    """At inference, and if frozen, rounded to the grid of its input, ties up, as XNNPACK's RESIZE_BILINEAR does."""

    @tf.autograph.experimental.do_not_convert
    def call(self, inputs, training=None):
        call = first_call(self)
        with float32_variables():
            grid = None if (training and self.trainable) or call is None else stored_grid(call.parent_nodes[0])
        if grid is None:
            return super().call(inputs)
        step = tf.cast(grid[0], tf.float32)
        levels = tf.floor(super().call(tf.round(tf.cast(inputs, tf.float32) / step)) + 0.5)
        return tf.cast(step * levels, inputs.dtype)
