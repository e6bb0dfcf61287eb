"""Keras 3's operation nodes as TensorFlow operators, and its activation functions as those of tf_keras."""

import numpy as np
import tensorflow as tf

from satkeras._compat import keras
from satkeras.models.activations import hard_sigmoid, hard_swish

_SAME_NAME = {"silu": "swish"}
_FUNCTIONS = {
    "relu6": tf.nn.relu6,
    "hard_sigmoid": hard_sigmoid,
    "hard_silu": hard_swish,
    "hard_swish": hard_swish,
}


def activation_of(function, convert):
    """The `activation=` argument for tf_keras.

    Args:
      function: that of a Keras 3 layer: a function of `keras.activations`, a layer, or None.
      convert: makes a tf_keras layer of a Keras 3 layer.

    Returns:
      That of tf_keras which computes the same, or the function itself.
    """
    if function is None:
        return None
    if hasattr(function, "get_config") and hasattr(function, "call"):
        return convert(function)
    name = getattr(function, "__name__", "")
    name = _SAME_NAME.get(name, name)
    if name == "leaky_relu":
        return keras.layers.LeakyReLU(0.2)
    if not getattr(function, "__module__", "").startswith("keras."):
        return function
    return _FUNCTIONS.get(name) or getattr(keras.activations, name, function)  # pyright: ignore[reportCallIssue]


def _activation(function):
    return lambda operation, x: keras.layers.Activation(function)(x)


def _reduced(function):
    return lambda operation, x: function(x, operation.axis, operation.keepdims)


def _transposed(operation, x):
    return tf.transpose(x, operation.axes)


def _relu(operation, x):
    return keras.layers.ReLU()(x)


def _padded(operation, x, constant_values=0):
    widths = operation.pad_width
    if operation.mode != "constant":
        raise ValueError(f"keras.ops.pad needs mode='constant', has {operation.mode!r}")
    return tf.pad(x, [list(width) for width in widths], constant_values=constant_values or 0)


def _split(operation, x):
    parts = operation.indices_or_sections
    if not isinstance(parts, int):
        ends = [*parts, x.shape[operation.axis]]
        parts = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
    return tf.split(x, parts, axis=operation.axis)


def _pooled(function):
    def pool(operation, x):
        window = operation.pool_size, operation.strides or operation.pool_size
        return function(x, *window, operation.padding.upper())

    return pool


def _unit(operation, x):
    if operation.order != 2:
        raise ValueError(f"keras.ops.normalize needs order=2, has {operation.order}")
    return tf.math.l2_normalize(x, operation.axis)


def _swapped(rank: int, one: int, two: int) -> list[int]:
    axes = list(range(rank))
    axes[one], axes[two] = axes[two], axes[one]
    return axes


def _moved(rank: int, source, destination) -> list[int]:
    axes = np.empty(range(1, rank + 1))  # an array whose sizes tell its axes
    return [size - 1 for size in np.moveaxis(axes, source, destination).shape]


def _cropped(operation, x):
    top, left = operation.top_cropping or 0, operation.left_cropping or 0
    height, width = operation.target_height, operation.target_width
    bottom = top + height if operation.bottom_cropping is None else x.shape[1] - operation.bottom_cropping
    right = left + width if operation.right_cropping is None else x.shape[2] - operation.right_cropping
    return x[:, top:bottom, left:right]


def _resized(operation, x):
    return tf.image.resize(x, operation.size, operation.interpolation)


OPERATIONS = {
    "Add": lambda operation, x, y: tf.add(x, y),
    "Subtract": lambda operation, x, y: tf.subtract(x, y),
    "Multiply": lambda operation, x, y: tf.multiply(x, y),
    "Divide": lambda operation, x, y: tf.truediv(x, y),
    "TrueDivide": lambda operation, x, y: tf.truediv(x, y),
    "Maximum": lambda operation, x, y: tf.maximum(x, y),
    "Minimum": lambda operation, x, y: tf.minimum(x, y),
    "Negative": lambda operation, x: tf.negative(x),
    "Square": lambda operation, x: tf.square(x),
    "Relu": _relu,
    "Relu6": lambda operation, x: tf.nn.relu6(x),
    "LeakyRelu": lambda operation, x: tf.nn.leaky_relu(x, operation.negative_slope),
    "Sigmoid": lambda operation, x: tf.sigmoid(x),
    "Tanh": lambda operation, x: tf.tanh(x),
    "Silu": lambda operation, x: tf.nn.silu(x),
    "HardSigmoid": _activation(hard_sigmoid),
    "HardSilu": _activation(hard_swish),
    "Softmax": lambda operation, x: tf.nn.softmax(x, operation.axis),
    "Gelu": lambda operation, x: tf.nn.gelu(x, operation.approximate),
    "Concatenate": lambda operation, xs: tf.concat(xs, operation.axis),
    "Stack": lambda operation, xs: tf.stack(xs, operation.axis),
    "Split": _split,
    "Reshape": lambda operation, x: tf.reshape(x, [-1, *operation.newshape[1:]]),
    "Transpose": _transposed,
    "Squeeze": lambda operation, x: tf.squeeze(x, operation.axis),
    "ExpandDims": lambda operation, x: tf.expand_dims(x, operation.axis),
    "GetItem": lambda operation, x, key: x[key],
    "Swapaxes": lambda operation, x: tf.transpose(x, _swapped(len(x.shape), operation.axis1, operation.axis2)),
    "Moveaxis": lambda operation, x: tf.transpose(x, _moved(len(x.shape), operation.source, operation.destination)),
    "Flip": lambda operation, x: tf.reverse(x, np.ravel(operation.axis).tolist()),
    "Take": lambda operation, x, indices: tf.gather(x, np.mod(indices, x.shape[operation.axis]), axis=operation.axis),
    "Mean": _reduced(tf.reduce_mean),
    **dict.fromkeys(("Max", "Amax"), _reduced(tf.reduce_max)),
    "Pad": _padded,
    "Clip": lambda operation, x: tf.clip_by_value(x, operation.x_min, operation.x_max),
    "MaxPool": _pooled(tf.nn.max_pool2d),
    "AveragePool": _pooled(tf.nn.avg_pool2d),
    "Normalize": _unit,
    "Resize": _resized,
    "CropImages": _cropped,
    "Cast": lambda operation, x: tf.cast(x, operation.dtype),
}
