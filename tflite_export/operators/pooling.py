"""Pools: MAX_POOL_2D, AVERAGE_POOL_2D. Their output is on their input's grid."""

import dataclasses

import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from tflite_export.operators.window import Window
from tflite_export.plan import Operator


@dataclasses.dataclass(frozen=True, eq=False)
class Pool(Operator):
    """What both pools have in common.

    Attributes:
      pool: height and width of the window.
      window: where it lies.
    """

    same_everywhere = True
    pool: tuple[int, int]
    window: Window

    def options(self):
        options = schema.Pool2DOptionsT()
        options.padding = self.window.padding_code
        options.strideH, options.strideW = self.window.strides
        options.filterHeight, options.filterWidth = self.pool
        return options


@dataclasses.dataclass(frozen=True, eq=False)
class MaxPool(Pool):
    """MAX_POOL_2D; padding does not count."""

    builtin = "MAX_POOL_2D"

    @property
    def runs_in_xnnpack(self) -> bool:  # type: ignore[override]
        """XNNPACK leaves out windows that skip values."""
        return all(stride <= size for stride, size in zip(self.window.strides, self.pool, strict=True))

    def compute(self, values, kernels):
        return tf.nn.max_pool2d(values[0], self.pool, self.window.strides, self.window.padding)


@dataclasses.dataclass(frozen=True, eq=False)
class AveragePool(Pool):
    """AVERAGE_POOL_2D: the mean of the int8 values inside the window, to nearest, ties away from int8's zero.

    Padding does not count, neither in the sum nor in the number of values. All kernels agree, unlike those of MEAN.
    """

    builtin = "AVERAGE_POOL_2D"
    runs_in_xnnpack = False

    def compute(self, values, kernels):
        (x,) = values
        total, count = (tf.cast(self._sums(numbers), tf.float64) for numbers in (x, tf.ones_like(x)))
        return tf.cast(tf.sign(total) * tf.floor((tf.abs(total) + tf.floor(count / 2)) / count), tf.float32)

    def _sums(self, x):
        """The sums of whole numbers (n, h, w, c) over each window, exact."""
        if tuple(self.pool) == tuple(x.shape[1:3]) and self.window.padding == "VALID":
            return tf.reduce_sum(x, (1, 2), keepdims=True)
        # Channels become images: a convolution takes unequal strides, a depthwise one does not.
        height, width, channels = self.inputs[0].shape
        images = tf.reshape(tf.transpose(tf.cast(x, tf.float64), (0, 3, 1, 2)), (-1, height, width, 1))
        ones = tf.ones((*self.pool, 1, 1), tf.float64)
        sums = tf.nn.conv2d(images, ones, self.window.strides, self.window.padding)
        sums = tf.reshape(sums, (-1, channels, *self.output.shape[:2]))
        return tf.transpose(sums, (0, 2, 3, 1))
