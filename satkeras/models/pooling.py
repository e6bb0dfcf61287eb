"""Average pools that predict as the file does: on the grid of what they pool."""

import math

import tensorflow as tf

from satkeras._compat import keras, serializable
from satkeras.models.stored import grid_to_round_to


class _OnGrid:
    """At inference, and if frozen, the mean is rounded to the grid of its input, as AVERAGE_POOL_2D rounds it.

    All runtimes round that operator alike, and none of the others that average. In training the mean is not rounded.
    """

    @tf.autograph.experimental.do_not_convert
    def call(self, inputs, training=None):
        mean = super().call(inputs)  # type: ignore[misc]
        grid = grid_to_round_to(self, training)
        if grid is None:
            return mean
        step, zero_point = grid
        integers = tf.round(tf.cast(inputs, tf.float32) / step)
        count = self._sums(tf.ones_like(integers))
        total = self._sums(integers) + count * zero_point
        # To nearest, ties away from int8's zero.
        level = tf.sign(total) * tf.floor((tf.abs(total) + tf.floor(count / 2)) / count)
        return tf.cast(step * (level - zero_point), mean.dtype)


@serializable
class GridGlobalAveragePooling2D(_OnGrid, keras.layers.GlobalAveragePooling2D):
    """Keras' GlobalAveragePooling2D on the grid of its input."""

    def _sums(self, x):
        return tf.reduce_sum(x, (1, 2), keepdims=self.keepdims)


@serializable
class GridAveragePooling2D(_OnGrid, keras.layers.AveragePooling2D):
    """Keras' AveragePooling2D on the grid of its input."""

    def _sums(self, x):
        if self.padding == "same":
            windows = zip(x.shape[1:3], self.pool_size, self.strides, strict=True)
            x = tf.pad(x, [(0, 0), *(_same_padding(*window) for window in windows), (0, 0)])
        ones = tf.ones((*self.pool_size, x.shape[-1], 1), x.dtype)
        # The kernel takes one stride for both axes; what it computes between an axis's own is left out.
        stride = math.gcd(*self.strides)
        sums = tf.nn.depthwise_conv2d(x, ones, (1, stride, stride, 1), "VALID")
        return sums[:, :: self.strides[0] // stride, :: self.strides[1] // stride]


def _same_padding(size: int, window: int, stride: int) -> tuple[int, int]:
    """How many zeros TensorFlow's "SAME" sets before and behind an axis."""
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2
