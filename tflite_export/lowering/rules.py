"""What each Keras layer does to the value it reads: a rule for each class, in the table `RULES`.

A rule takes the walk of `lower.py`, the layer's call and the layer itself (out of its wrapper). It returns what the
call makes: a `Tensor` that an operator writes, a `Pending` sum that no operator has closed yet, or None for an input.
It raises `Problem` where the layer cannot be lowered exactly.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from satkeras._compat import keras
from satkeras.models.graph import Node
from satkeras.models.insertion import has_quantizer
from satkeras.models.relus import AbsorbedReLU, MaskedReLU
from satkeras.reports.integers import integer_weight
from tflite_export.lowering.requantize import Pending, Problem, identity, rescaled
from tflite_export.plan import (
    Add,
    Convolution,
    DepthwiseConvolution,
    FullyConnected,
    MaxPool,
    Mean,
    Pad,
    Reshape,
    Softmax,
    Tensor,
    Window,
)

_layers = keras.layers


def _linear_layer(walk, node: Node, layer) -> Pending:
    if not has_quantizer(node.layer):
        raise Problem("its weights have no quantizer")
    kernel = integer_weight(node.layer)
    weights, params = kernel.integers.astype(np.int64), kernel.params
    if layer.use_bias and not np.isfinite(layer.bias.numpy()).all():
        raise Problem("its bias holds NaN or infinity")
    x = walk.stored(node.inputs[0])
    kind, window = FullyConnected, Window()
    if not isinstance(layer, _layers.Dense):
        kind = DepthwiseConvolution if isinstance(layer, _layers.DepthwiseConv2D) else Convolution
        window = Window(layer.strides, layer.padding.upper(), layer.dilation_rate)
    if kind is DepthwiseConvolution:
        weights = weights[..., 0]
    channels = weights.shape[-1]
    bias = layer.bias.numpy().astype(np.float64) if layer.use_bias else np.zeros(channels)
    step = np.broadcast_to(params.scale.astype(np.float64), channels)
    return Pending(kind, (x,), (node.name,), weights, params.qmax, step, bias, window)


def _batch_norm(walk, node: Node, layer) -> Pending:
    mean, variance = layer.moving_mean.numpy().astype(np.float64), layer.moving_variance.numpy().astype(np.float64)
    gamma = layer.gamma.numpy().astype(np.float64) if layer.scale else 1.0
    beta = layer.beta.numpy().astype(np.float64) if layer.center else 0.0
    factor = gamma / np.sqrt(variance + layer.epsilon)
    if not np.isfinite([factor, mean * factor + beta]).all():
        raise Problem("its weights hold NaN or infinity")
    before = walk.taken(node.inputs[0])
    if isinstance(before, Tensor):
        before = identity(before)
    if before.step is None or before.relu:
        raise Problem(f"a batch norm cannot fold into {before.layers}: quantize the tensor between them")
    bias = (before.bias - mean) * factor + beta
    return dataclasses.replace(before, layers=(*before.layers, node.name), step=before.step * factor, bias=bias)


def _relu(walk, node: Node, layer) -> Pending:
    before = walk.taken(node.inputs[0])
    if isinstance(before, Tensor):
        before = rescaled(before)
    ceiling = np.inf if layer.max_value is None else float(layer.max_value)
    return dataclasses.replace(before, layers=(*before.layers, node.name), relu=True, ceiling=ceiling)


def _add_layer(walk, node: Node, layer) -> Pending:
    return Pending(Add, tuple(walk.stored(parent) for parent in node.inputs), (node.name,))


def _global_average(walk, node: Node, layer) -> Pending:
    x = walk.stored(node.inputs[0])
    if x.shape[:2] == (1, 1):
        # The converter drops a MEAN of single pixels, and with it the change of scale.
        return dataclasses.replace(identity(x), layers=(node.name,))
    return Pending(Mean, (x,), (node.name,))


def _average_pool(walk, node: Node, layer) -> Pending:
    """A depthwise convolution with equal weights: unlike AVERAGE_POOL_2D it rounds once, and to a scale of its own."""
    x = walk.stored(node.inputs[0])
    height, width = layer.pool_size
    ones = dataclasses.replace(identity(x), layers=(node.name,), window=Window(layer.strides))
    channels = x.shape[-1]
    weights, step = np.ones((height, width, channels), np.int64), np.full(channels, 1 / (height * width))
    return dataclasses.replace(ones, weights=weights, step=step)


def _moved(walk, node: Node) -> tuple[Tensor, Tensor]:
    """The input and output of a layer that keeps its input's scale."""
    x = walk.stored(node.inputs[0])
    return x, dataclasses.replace(x, name=node.name, shape=node.shape, layer=node.name)


def _max_pool(walk, node: Node, layer) -> Tensor:
    x, output = _moved(walk, node)
    window = Window(layer.strides, layer.padding.upper())
    return walk.append(MaxPool((x,), output, layers=(node.name,), pool=layer.pool_size, window=window))


def _global_max(walk, node: Node, layer) -> Tensor:
    x, output = _moved(walk, node)
    pooled = dataclasses.replace(output, name=f"{node.name}/pooled", shape=(1, 1, x.shape[-1]), layer=None)
    walk.append(MaxPool((x,), pooled, pool=x.shape[:2], window=Window(x.shape[:2])))
    return walk.append(Reshape((pooled,), output, layers=(node.name,)))


def _pad(walk, node: Node, layer) -> Tensor:
    x, output = _moved(walk, node)
    return walk.append(Pad((x,), output, layers=(node.name,), paddings=layer.padding))


def _reshape(walk, node: Node, layer) -> Tensor:
    x, output = _moved(walk, node)
    if x.shape == output.shape:
        return x
    return walk.append(Reshape((x,), output, layers=(node.name,)))


def _same(walk, node: Node, layer):
    return walk.taken(node.inputs[0])


def _softmax(walk, node: Node, layer) -> Tensor:
    x = walk.stored(node.inputs[0])
    output = Tensor(node.name, node.shape, np.float32(1 / 256), -128, 1 / 256, layer=node.name)
    return walk.append(Softmax((x,), output, layers=(node.name,)))


RULES: dict[type, Callable] = {
    _layers.InputLayer: lambda walk, node, layer: None,
    _layers.Conv2D: _linear_layer,
    _layers.DepthwiseConv2D: _linear_layer,
    _layers.Dense: _linear_layer,
    _layers.BatchNormalization: _batch_norm,
    _layers.ReLU: _relu,
    AbsorbedReLU: _relu,
    MaskedReLU: _relu,
    _layers.Add: _add_layer,
    _layers.GlobalAveragePooling2D: _global_average,
    _layers.AveragePooling2D: _average_pool,
    _layers.MaxPooling2D: _max_pool,
    _layers.GlobalMaxPooling2D: _global_max,
    _layers.ZeroPadding2D: _pad,
    _layers.Flatten: _reshape,
    _layers.Reshape: _reshape,
    _layers.Dropout: _same,
    _layers.SpatialDropout2D: _same,
    _layers.Activation: _same,
    _layers.Softmax: _softmax,
}
