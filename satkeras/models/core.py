"""Core layers that Keras lacks: what TensorFlow operators and other frameworks' layers become in a model of layers."""

import tensorflow as tf

from satkeras._compat import keras, serializable

# By other factors pixels have shares that kernels round to 10 or 11 bits, each otherwise.
BILINEAR_FACTORS = (1, 2, 4, 8)


@serializable
class BilinearUpSampling2D(keras.layers.UpSampling2D):
    """Keras' `UpSampling2D(interpolation="bilinear")`."""


class OnItsInputsGrid(keras.layers.Layer):
    """A layer of satkeras' own whose result is on its input's grid, or on one of the same integers."""


@serializable
class Clip(keras.layers.Layer):
    """`tf.clip_by_value`, either end of which may be missing.

    Args:
      low: the smallest value, or None.
      high: the largest, or None.
    """

    def __init__(self, low: float | None = None, high: float | None = None, **kwargs):
        super().__init__(**kwargs)
        self.low, self.high = (None if end is None else float(end) for end in (low, high))

    def call(self, inputs):
        x = inputs if self.low is None else tf.maximum(inputs, tf.cast(self.low, inputs.dtype))
        return x if self.high is None else tf.minimum(x, tf.cast(self.high, x.dtype))

    def get_config(self):
        return {**super().get_config(), "low": self.low, "high": self.high}


@serializable
class Mean(keras.layers.GlobalAveragePooling2D):
    """Keras' GlobalAveragePooling2D on a grid of its own, which is finer than its input's."""


@serializable
class Slice(keras.layers.Layer):
    """`x[:, begin[0]:end[0]:strides[0], begin[1]:end[1]:strides[1], ...]`.

    Args:
      begin: for every axis but the batch's, 0 or more.
      end: for every axis but the batch's, up to its size.
      strides: for every axis but the batch's, 1 or more; all 1 by default.

    Raises:
      ValueError: the three are of different lengths, or describe no slice.
    """

    def __init__(self, begin, end, strides=None, **kwargs):
        super().__init__(**kwargs)
        self.begin, self.end = tuple(map(int, begin)), tuple(map(int, end))
        self.strides = tuple(map(int, strides)) if strides is not None else (1,) * len(self.begin)
        lengths = {len(self.begin), len(self.end), len(self.strides)}
        if (
            len(lengths) > 1
            or min(self.strides) < 1
            or any(not 0 <= a < b for a, b in zip(self.begin, self.end, strict=True))
        ):
            raise ValueError(
                "A slice needs 0 <= begin < end and strides >= 1, for every axis but the batch's. Received: "
                f"begin={self.begin}, end={self.end}, strides={self.strides}"
            )

    def build(self, input_shape):
        sizes = tuple(input_shape[1:])
        if len(sizes) != len(self.end) or any(b > (size or b) for b, size in zip(self.end, sizes, strict=True)):
            raise ValueError(
                f"Layer {self.name!r}: end={self.end} must lie within the input. Received: an input of shape {sizes}"
            )
        super().build(input_shape)

    def call(self, inputs):
        slices = (slice(*ends) for ends in zip(self.begin, self.end, self.strides, strict=True))
        return inputs[(slice(None), *slices)]

    def compute_output_shape(self, input_shape):
        lengths = (len(range(*ends)) for ends in zip(self.begin, self.end, self.strides, strict=True))
        return tf.TensorShape((input_shape[0], *lengths))

    def get_config(self):
        return {**super().get_config(), "begin": self.begin, "end": self.end, "strides": self.strides}


class _Block(keras.layers.Layer):
    """What both exchanges of space and channels have in common.

    Args:
      block_size: height and width of the pixels that one pixel's channels are.
    """

    def __init__(self, block_size: int, **kwargs):
        super().__init__(**kwargs)
        self.block_size = int(block_size)

    def get_config(self):
        return {**super().get_config(), "block_size": self.block_size}


@serializable
class DepthToSpace(_Block):
    """`tf.nn.depth_to_space`: (h, w, b² c) to (b h, b w, c); pixel shuffle.

    Args:
      block_size: b, 2 or more.
    """

    def call(self, inputs):
        return tf.nn.depth_to_space(inputs, self.block_size)

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        block = self.block_size
        return tf.TensorShape((batch, height and height * block, width and width * block, channels // block**2))


@serializable
class SpaceToDepth(_Block):
    """`tf.nn.space_to_depth`: (b h, b w, c) to (h, w, b² c).

    Args:
      block_size: b, 2 or more.
    """

    def call(self, inputs):
        return tf.nn.space_to_depth(inputs, self.block_size)

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        block = self.block_size
        return tf.TensorShape((batch, height and height // block, width and width // block, channels * block**2))
