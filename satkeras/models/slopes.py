"""LeakyReLU and PReLU with the slopes that kernels compute with, at inference on the grid of their input."""

import tensorflow as tf

from satkeras._compat import float32_variables, keras, serializable
from satkeras.formulas.rounding import round_ste
from satkeras.models.stored import grid_to_round_to

LARGEST_SLOPE_CODE = 127


class _Sloped:
    """Negative values times a slope; at inference, and if frozen, rounded to the grid of the input."""

    def unrounded(self, inputs):
        """The result before it is rounded."""
        return tf.where(inputs >= 0, inputs, inputs * tf.cast(self.slope, inputs.dtype))

    @property
    def slope(self):
        """What negative values are multiplied by."""
        raise NotImplementedError

    @tf.autograph.experimental.do_not_convert
    def call(self, inputs, training=None):
        values = self.unrounded(inputs)
        grid = grid_to_round_to(self, training)
        if grid is None:
            return values
        step, zero_point = grid
        level = tf.floor(tf.cast(values, tf.float32) / step + 0.5)
        return tf.cast(step * tf.clip_by_value(level, -128 - zero_point, 127 - zero_point), values.dtype)


@serializable
class GridLeakyReLU(_Sloped, keras.layers.LeakyReLU):
    """Keras' LeakyReLU, its slope rounded to 1/256, as XNNPACK keeps it."""

    @property
    def slope(self):
        return round(float(self.alpha) * 256) / 256


@serializable
class GridPReLU(_Sloped, keras.layers.PReLU):
    """Keras' PReLU, its slopes on a grid of 127 steps to either side of zero."""

    @property
    def slope(self):
        with float32_variables():
            step = self.slope_step
            return round_ste(tf.convert_to_tensor(self.alpha) / step) * step

    @property
    def slope_step(self):
        """The size of a step of the slopes."""
        largest = tf.reduce_max(tf.abs(tf.stop_gradient(tf.convert_to_tensor(self.alpha))))
        return tf.where(largest > 0, largest, 1.0) / LARGEST_SLOPE_CODE
