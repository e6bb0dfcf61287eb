"""Convolutions and dense layers as the three that kernels know: Conv2D, DepthwiseConv2D with multiplier 1, Dense."""

import numpy as np

from satkeras._compat import is_symbolic, keras
from satkeras.models.core import Slice
from satkeras.models.rewrites.call import Call, Refused
from satkeras.models.rewrites.images import in_space

_layers = keras.layers
_WITHOUT_EFFECT = ("name", "use_cudnn_on_gpu")
_REGULARIZED = ("activity_regularizer", "bias_regularizer", "bias_constraint")


def convolution(call: Call, x, kernel, bias, *, part: str = "", **config):
    """A Conv2D of an image, with the activation and bias of the call's layer, in as many groups as it has.

    Args:
      call: of a layer with `activation`, and `groups` if it has them.
      x: (h, w, channels).
      kernel: (kh, kw, channels / groups, filters).
      bias: [(filters,)] or [].
      part: see `Call.apply`.
      config: what else a Conv2D needs.
    """
    layer, groups = call.layer, getattr(call.layer, "groups", 1)
    config = {
        "kernel_size": kernel.shape[:2],
        "activation": layer.activation,
        "use_bias": bool(bias),
        **{name: getattr(layer, name) for name in _REGULARIZED},
        **config,
    }
    if groups == 1:
        return call.apply(_layers.Conv2D, x, part, [kernel, *bias], filters=kernel.shape[-1], **config)
    own, read = kernel.shape[-1] // groups, x.shape[-1] // groups
    results = []
    for group in range(groups):
        weights = [values[..., group * own : (group + 1) * own] for values in (kernel, *bias)]
        piece = channels(call, x, group * read, (group + 1) * read, f"group_{group}_input")
        results.append(call.apply(_layers.Conv2D, piece, f"group_{group}", weights, filters=own, **config))
    return concatenated(call, results)


def concatenated(call: Call, parts: list, part: str = ""):
    """Groups of channels as one tensor, that remembers its groups."""
    joined = call.apply(_layers.Concatenate, parts, part)
    return call.core.remember(call.core.groups, joined, parts)


def channels(call: Call, x, begin: int, end: int, part: str):
    """The channels from `begin` to `end` of a tensor."""
    if begin == 0 and end == x.shape[-1]:
        return x
    sizes = call.fixed(x)[:-1]
    return call.apply(Slice, x, part, begin=(*(0 for _ in sizes), begin), end=(*sizes, end))


def depthwise(call: Call, x, kernel, bias, *, part: str = "", **config):
    """A DepthwiseConv2D with any multiplier, as one of multiplier 1 on channels that are repeated before it.

    Args:
      call: see `Call.apply`.
      x: (h, w, channels).
      kernel: (kh, kw, channels, multiplier).
      bias: [(channels * multiplier,)] or [].
      part: see `Call.apply`.
      config: what else a DepthwiseConv2D needs.
    """
    size, (read, multiplier) = kernel.shape[:2], kernel.shape[2:]
    if read == 1 and multiplier > 1:  # of one channel, it is a convolution
        config = {name.replace("depthwise", "kernel"): value for name, value in config.items()}
        return call.apply(
            _layers.Conv2D,
            x,
            part,
            [kernel, *bias],
            filters=multiplier,
            kernel_size=size,
            use_bias=bool(bias),
            **config,
        )
    if multiplier > 1:
        x = repeated_channels(call, x, multiplier)
        kernel = kernel.reshape(*size, read * multiplier, 1)
    return call.apply(
        _layers.DepthwiseConv2D, x, part, [kernel, *bias], kernel_size=size, use_bias=bool(bias), **config
    )


def repeated_channels(call: Call, x, times: int):
    """Every channel of an image (h, w, c) `times` times in a row: nearest neighbours along a row of single values."""
    height, width, count = call.fixed(x)
    row = call.apply(_layers.Reshape, x, "values", target_shape=(height, width * count, 1))
    row = call.apply(_layers.UpSampling2D, row, "repeated", size=(1, times))
    return call.apply(_layers.Reshape, row, "channels", target_shape=(height, width, count * times))


def require_channels_last(call: Call) -> None:
    """Raises Refused for a layer of the other layout."""
    if getattr(call.layer, "data_format", "channels_last") != "channels_last":
        raise Refused("needs data_format='channels_last'; build the model anew with it, the weights are the same")


def _conv2d(call: Call, x):
    require_channels_last(call)
    layer = call.layer
    kernel, *bias = layer.get_weights()
    return convolution(
        call,
        x,
        kernel,
        bias,
        strides=layer.strides,
        padding=layer.padding,
        dilation_rate=layer.dilation_rate,
        kernel_regularizer=layer.kernel_regularizer,
        kernel_constraint=layer.kernel_constraint,
    )


def depthwise_config(layer) -> dict:
    """The arguments of a DepthwiseConv2D that stands for a layer, or for a part of it."""
    return {
        "depthwise_regularizer": layer.depthwise_regularizer,
        "depthwise_constraint": layer.depthwise_constraint,
    }


def _depthwise_conv2d(call: Call, x):
    require_channels_last(call)
    layer = call.layer
    kernel, *bias = layer.get_weights()
    return depthwise(
        call,
        x,
        kernel,
        bias,
        strides=layer.strides,
        padding=layer.padding,
        dilation_rate=layer.dilation_rate,
        activation=layer.activation,
        **depthwise_config(layer),
        **{name: getattr(layer, name) for name in _REGULARIZED},
    )


def _separable_conv2d(call: Call, x):
    require_channels_last(call)
    layer = call.layer
    kernel, point, *bias = layer.get_weights()
    x = depthwise(
        call,
        x,
        kernel,
        [],
        part="depthwise",
        strides=layer.strides,
        padding=layer.padding,
        dilation_rate=layer.dilation_rate,
        **depthwise_config(layer),
    )
    return pointwise(call, x, point, bias)


def pointwise(call: Call, x, kernel, bias):
    """The 1x1 convolution of a separable layer."""
    layer = call.layer
    return convolution(
        call,
        x,
        kernel,
        bias,
        kernel_regularizer=layer.pointwise_regularizer,
        kernel_constraint=layer.pointwise_constraint,
    )


def _dense(call: Call, x):
    layer, rank = call.layer, len(x.shape)
    if rank > 4:
        raise Refused(f"needs inputs of rank 2 to 4, gets rank {rank}; put a Reshape before it")
    kernel, *bias = layer.get_weights()
    result = convolution(
        call,
        x if rank == 4 else call.image(x),
        kernel[None, None],
        bias,
        kernel_regularizer=layer.kernel_regularizer,
        kernel_constraint=layer.kernel_constraint,
    )
    return result if rank == 4 else call.sequence(result)


def _matmul(call: Call, a, b, transpose_a=False, transpose_b=False, **options):
    if transpose_a or any(value for key, value in options.items() if key != "name"):
        raise Refused("needs tf.matmul(x, matrix, transpose_b=...) without more options")
    return _times_matrix(call, a, np.transpose(b) if transpose_b and not is_symbolic(b) else b)


def _tensordot(call: Call, a, b, axes, name=None):
    pair = [-1, 0] if np.array_equal(axes, 1) else np.ravel(axes).tolist()
    if len(pair) != 2 or pair[0] not in (-1, len(a.shape) - 1) or is_symbolic(b):
        raise Refused(f"needs a tensor's last axis times one of an array of numbers, has axes={axes}")
    array = np.moveaxis(np.asarray(b, np.float32), pair[1], 0)
    product = _times_matrix(call, a, array.reshape(len(array), -1))
    if array.ndim == 2:
        return product
    return call.apply(_layers.Reshape, product, "shape", target_shape=(*call.fixed(a)[:-1], *array.shape[1:]))


def _times_matrix(call: Call, x, matrix):
    """A frozen layer whose kernel is a matrix of numbers."""
    if not is_symbolic(x) or is_symbolic(matrix) or np.ndim(matrix) != 2 or len(x.shape) > 4:
        raise Refused(
            "needs a tensor of rank 2 to 4 and a matrix of numbers; no int8 kernel multiplies two tensors' "
            "matrices exactly"
        )
    kernel = np.asarray(matrix, np.float32)
    config = {"use_bias": False, "trainable": False}
    if len(x.shape) == 2:
        return call.apply(_layers.Dense, x, "", [kernel], units=kernel.shape[1], **config)
    image = x if len(x.shape) == 4 else call.image(x)
    result = call.apply(
        _layers.Conv2D, image, "", [kernel[None, None]], filters=kernel.shape[1], kernel_size=1, **config
    )
    return result if len(x.shape) == 4 else call.sequence(result)


def _in_grey(call: Call, images, name=None):
    return _times_matrix(call, images, [[0.2989], [0.5870], [0.1140]])  # TensorFlow's own shares


def _convolved(call: Call, input, filter=None, strides=1, padding="VALID", filters=None, **options):  # noqa: A002
    kernel, config = _constant_kernel(input, filter if filters is None else filters, strides, padding, options)
    if kernel.shape[2] != input.shape[-1]:
        raise Refused(f"needs a kernel of {input.shape[-1]} channels, has {kernel.shape[2]}")
    return call.apply(
        _layers.Conv2D,
        input,
        "",
        [kernel],
        filters=kernel.shape[3],
        kernel_size=kernel.shape[:2],
        use_bias=False,
        **config,
    )


def _convolved_depthwise(call: Call, input, filter, strides=1, padding="VALID", **options):  # noqa: A002
    kernel, config = _constant_kernel(input, filter, strides, padding, options)
    return depthwise(call, input, kernel, [], **config)


def _constant_kernel(x, kernel, strides, padding, options: dict) -> tuple[np.ndarray, dict]:
    """The kernel of one of TensorFlow's convolutions, and the arguments of a frozen layer with it."""
    options = {key: value for key, value in options.items() if value is not None and key not in _WITHOUT_EFFECT}
    dilations = options.pop("dilations", options.pop("rate", 1))
    if options.pop("data_format", "NHWC") != "NHWC" or options or not isinstance(padding, str) or len(x.shape) != 4:
        raise Refused("needs images, padding 'SAME' or 'VALID', data_format='NHWC' and no more options")
    if is_symbolic(kernel):
        raise Refused("needs a kernel of numbers; no int8 kernel convolves two tensors")
    sizes = {"strides": in_space(strides), "dilation_rate": in_space(dilations)}
    return np.asarray(kernel, np.float32), {**sizes, "padding": padding.lower(), "trainable": False}


def _only_if(condition, rewrite):
    """A row for the calls that are not core layers as they are."""

    def row(call: Call, x, **kwargs):
        return rewrite(call, x) if condition(call.layer, x) else call.kept(x)

    return row


REWRITES = {
    _layers.Conv2D: _only_if(lambda layer, x: layer.groups > 1, _conv2d),
    _layers.DepthwiseConv2D: _only_if(lambda layer, x: layer.depth_multiplier > 1, _depthwise_conv2d),
    _layers.SeparableConv2D: _separable_conv2d,
    _layers.Dense: _only_if(lambda layer, x: len(x.shape) > 2, _dense),
}
OPERATORS = {
    "linalg.matmul": _matmul,
    "tensordot": _tensordot,
    "image.rgb_to_grayscale": _in_grey,
    **dict.fromkeys(("nn.conv2d", "compat.v1.nn.conv2d", "nn.convolution", "compat.v1.nn.convolution"), _convolved),
    **dict.fromkeys(("nn.depthwise_conv2d", "compat.v1.nn.depthwise_conv2d"), _convolved_depthwise),
}
