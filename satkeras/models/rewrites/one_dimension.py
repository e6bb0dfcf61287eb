"""Layers of sequences (n, c) as layers of images (1, n, c), which have the kernels.

Between two of them nothing is reshaped: a sequence that was an image is that image again. What works on any rank
(batch norms, activations, sums) is called on the image, too, so that it still stands behind its convolution.
"""

from satkeras._compat import keras
from satkeras.models.rewrites.call import Call, Refused
from satkeras.models.rewrites.linear import (
    concatenated,
    convolution,
    depthwise,
    depthwise_config,
    pointwise,
    require_channels_last,
)

_layers = keras.layers


def _windows(call: Call, x) -> tuple[object, dict]:
    """The image of a sequence, and the window of the layer's convolution on it."""
    require_channels_last(call)
    layer = call.layer
    image, padding = call.image(x), layer.padding
    if padding == "causal":
        before = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
        image = call.apply(_layers.ZeroPadding2D, image, "causal", padding=((0, 0), (before, 0)))
        padding = "valid"
    strides, dilation = layer.strides[0], layer.dilation_rate[0]
    return image, {"strides": (1, strides), "padding": padding, "dilation_rate": (1, dilation)}


def _conv1d(call: Call, x):
    layer = call.layer
    image, window = _windows(call, x)
    kernel, *bias = layer.get_weights()
    result = convolution(
        call,
        image,
        kernel[None],
        bias,
        kernel_regularizer=layer.kernel_regularizer,
        kernel_constraint=layer.kernel_constraint,
        **window,
    )
    return call.sequence(result)


def _depthwise(call: Call, x, kernel, bias, part: str = "", **config):
    image, window = _windows(call, x)
    stride = window["strides"][1]
    # TensorFlow's kernel wants the same stride in both directions; of one row it does not matter.
    window["strides"] = (stride, stride)
    return depthwise(call, image, kernel[None], bias, part=part, **window, **config, **depthwise_config(call.layer))


def _depthwise_conv1d(call: Call, x):
    kernel, *bias = call.layer.get_weights()
    return call.sequence(_depthwise(call, x, kernel, bias, activation=call.layer.activation))


def _separable_conv1d(call: Call, x):
    kernel, point, *bias = call.layer.get_weights()
    return call.sequence(pointwise(call, _depthwise(call, x, kernel, [], "depthwise"), point[None], bias))


def _conv1d_transpose(call: Call, x):
    require_channels_last(call)
    layer = call.layer
    kernel, *bias = layer.get_weights()
    if layer.output_padding is not None:
        raise Refused("needs output_padding=None; crop or pad the result")
    result = call.apply(
        _layers.Conv2DTranspose,
        call.image(x),
        weights=[kernel[None], *bias],
        filters=layer.filters,
        kernel_size=(1, layer.kernel_size[0]),
        strides=(1, layer.strides[0]),
        padding=layer.padding,
        dilation_rate=(1, layer.dilation_rate[0]),
        activation=layer.activation,
        use_bias=layer.use_bias,
        kernel_regularizer=layer.kernel_regularizer,
    )
    return call.sequence(result)


def _pool(cls):
    def row(call: Call, x):
        require_channels_last(call)
        window = {"pool_size": (1, _only(call.layer.pool_size)), "strides": (1, _only(call.layer.strides))}
        return call.sequence(call.apply(cls, call.image(x), padding=call.layer.padding, **window))

    return row


def _global_pool(cls):
    def row(call: Call, x, mask=None):
        require_channels_last(call)
        image = call.image(x)
        if not call.layer.keepdims:
            return call.apply(cls, image)
        return call.sequence(call.apply(cls, image, keepdims=True))

    return row


def _borders(cls, argument: str, both=lambda ends: ((0, 0), tuple(ends))):
    def row(call: Call, x):
        given = {argument: both(getattr(call.layer, argument))}
        return call.sequence(call.apply(cls, call.image(x), **given))

    return row


def _spatial_dropout(call: Call, x):
    return call.sequence(call.apply(_layers.SpatialDropout2D, call.image(x), rate=call.layer.rate))


def _repeated(call: Call, x):
    (channels,) = call.fixed(x)
    image = call.apply(_layers.Reshape, x, "image", target_shape=(1, 1, channels))
    return call.sequence(call.apply(_layers.UpSampling2D, image, size=(1, call.layer.n)))


def _on_image(call: Call, x, *args, **kwargs):
    """A layer that treats every rank alike: on the image, if the sequence is one; on groups of channels, one by one."""
    if isinstance(x, (list, tuple)):
        images = [call.core.images.get(id(part)) for part in x]
        return call.kept(x) if None in images else call.sequence(call.kept(images))
    if id(x) in call.core.groups and not call.layer.get_weights():
        return _each_group(call, x)
    return call.sequence(call.kept(call.image(x))) if id(x) in call.core.images else call.kept(x)


def _each_group(call: Call, x):
    config = {key: value for key, value in call.layer.get_config().items() if key not in ("name", "dtype", "trainable")}
    groups = enumerate(call.core.groups[id(x)])
    return concatenated(call, [call.apply(type(call.layer), part, f"group_{i}", **config) for i, part in groups])


def _batch_norm(call: Call, x, *args, **kwargs):
    layer = call.layer
    if len(x.shape) == 3 and list(layer.axis) == [2]:
        copy = {**layer.get_config(), "axis": [3]}
        given = {key: value for key, value in copy.items() if key not in ("name", "dtype", "trainable")}
        return call.sequence(call.apply(type(layer), call.image(x), weights=layer.get_weights(), **given))
    if id(x) not in call.core.groups or list(layer.axis) != [len(x.shape) - 1]:
        return call.kept(x)
    given = {key: value for key, value in layer.get_config().items() if key not in ("name", "dtype", "trainable")}
    results, begin, weights = [], 0, layer.get_weights()
    for i, part in enumerate(call.core.groups[id(x)]):
        end = begin + part.shape[-1]
        own = [values[begin:end] for values in weights]
        results.append(call.apply(type(layer), part, f"group_{i}", own, **given))
        begin = end
    return concatenated(call, results)


def _only(value) -> int:
    return value[0] if isinstance(value, (list, tuple)) else value


REWRITES = {
    _layers.Conv1D: _conv1d,
    _layers.DepthwiseConv1D: _depthwise_conv1d,
    _layers.SeparableConv1D: _separable_conv1d,
    _layers.Conv1DTranspose: _conv1d_transpose,
    _layers.MaxPooling1D: _pool(_layers.MaxPooling2D),
    _layers.AveragePooling1D: _pool(_layers.AveragePooling2D),
    _layers.GlobalMaxPooling1D: _global_pool(_layers.GlobalMaxPooling2D),
    _layers.GlobalAveragePooling1D: _global_pool(_layers.GlobalAveragePooling2D),
    _layers.ZeroPadding1D: _borders(_layers.ZeroPadding2D, "padding"),
    _layers.Cropping1D: _borders(_layers.Cropping2D, "cropping"),
    _layers.UpSampling1D: _borders(_layers.UpSampling2D, "size", lambda size: (1, _only(size))),
    _layers.RepeatVector: _repeated,
    _layers.SpatialDropout1D: _spatial_dropout,
    _layers.BatchNormalization: _batch_norm,
    **dict.fromkeys(
        (
            *(_layers.ReLU, _layers.LeakyReLU, _layers.ELU, _layers.Activation, _layers.ThresholdedReLU),
            *(_layers.Add, _layers.Subtract, _layers.Multiply, _layers.Average, _layers.Maximum, _layers.Minimum),
        ),
        _on_image,
    ),
}
