"""What each Keras layer does to the value it reads: a rule for each class, in the table `RULES`.

A rule gets the walk of `lower.py`, the layer's call and the layer itself (out of its wrapper). It returns the call's
result: a `Tensor` that an operator writes, a `Pending` result that no operator has closed yet, or None for an input.
It raises `Problem` where the layer cannot be lowered exactly.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from satkeras._compat import keras
from satkeras.models.graph import Node
from satkeras.models.insertion import has_quantizer, quantizes_tensor
from satkeras.models.layers import canonical_layers
from satkeras.models.pooling import GridAveragePooling2D, GridGlobalAveragePooling2D
from satkeras.models.relus import AbsorbedReLU, MaskedReLU
from satkeras.quantizers.int8 import narrowed, weight_spread
from satkeras.reports.integers import integer_weight
from tflite_export.lowering.closing import close_add, close_sum, identity, requantized
from tflite_export.lowering.grids import require_true_scale
from tflite_export.lowering.pending import Pending, Problem, WeightedSum
from tflite_export.operators import (
    AveragePool,
    Concatenation,
    Convolution,
    DepthwiseConvolution,
    FullyConnected,
    Maximum,
    MaxPool,
    Minimum,
    Pad,
    Reshape,
    Softmax,
    Window,
)
from tflite_export.plan import Tensor

_layers = keras.layers


def _linear_layer(walk, node: Node, layer) -> Pending:
    if not has_quantizer(node.layer):
        raise Problem("its weights have no quantizer: add it before quantize_model, not after")
    kernel = integer_weight(node.layer)
    params = kernel.params
    weights = narrowed(kernel.integers - params.zero_point, np.int16)
    if layer.use_bias and not np.isfinite(layer.bias.numpy()).all():
        raise Problem("its bias holds NaN or infinity")
    x = walk.stored(node.inputs[0])
    kind, window = FullyConnected, Window()
    if not isinstance(layer, _layers.Dense):
        kind = DepthwiseConvolution if isinstance(layer, _layers.DepthwiseConv2D) else Convolution
        window = Window(tuple(layer.strides), layer.padding.upper(), tuple(layer.dilation_rate))
    if kind is DepthwiseConvolution:
        weights = weights[..., 0]
    channels = weights.shape[-1]
    bias = layer.bias.numpy().astype(np.float64) if layer.use_bias else np.zeros(channels)
    step = np.broadcast_to(params.scale.astype(np.float64), channels)
    spread = weight_spread((params.qmin, params.qmax), params.zero_point)
    total = WeightedSum(kind, walk.kernel_named(layer.name), weights, spread, step, bias, window)
    return Pending((x,), (node.name,), close_sum, total)


def _batch_norm(walk, node: Node, layer) -> Pending:
    mean, variance = layer.moving_mean.numpy().astype(np.float64), layer.moving_variance.numpy().astype(np.float64)
    gamma = layer.gamma.numpy().astype(np.float64) if layer.scale else 1.0
    beta = layer.beta.numpy().astype(np.float64) if layer.center else 0.0
    factor = gamma / np.sqrt(variance + layer.epsilon)
    if not np.isfinite([factor, mean * factor + beta]).all():
        raise Problem("its weights hold NaN or infinity")
    before = walk.value(node.inputs[0])
    if isinstance(before, Tensor):
        before = identity(before)
    if before.total is None or before.relu:
        raise Problem(f"a batch norm cannot fold into {before.layers}: quantize the tensor between them")
    total = before.total
    bias = (total.bias - mean) * factor + beta
    return before.then(node.name, total=dataclasses.replace(total, step=total.step * factor, bias=bias))


def _relu(walk, node: Node, layer) -> "Pending | Tensor":
    if layer.negative_slope or layer.threshold:
        raise Problem("needs negative_slope=0 and threshold=0")
    before = walk.value(node.inputs[0])
    ceiling = np.inf if layer.max_value is None else float(layer.max_value)
    if isinstance(before, Tensor):
        if not all(quantizes_tensor(reader.layer) for reader in walk.graph.consumers(node)) or _is_output(walk, node):
            return _relu_on_its_grid(walk, node, before, ceiling)
        before = requantized(before)
    return before.then(node.name, relu=True, ceiling=min(ceiling, before.ceiling))


def _is_output(walk, node: Node) -> bool:
    return node in walk.graph.outputs


def _relu_on_its_grid(walk, node: Node, x: Tensor, ceiling: float) -> Tensor:
    """A ReLU of a stored tensor that nothing stores anew: MAXIMUM and MINIMUM, on the tensor's own grid."""
    highest = x.zero_point + ceiling / x.step
    if np.isfinite(ceiling) and highest < x.highest:
        if abs(highest - round(highest)) > 1e-3:
            raise Problem(f"its maximum {ceiling:g} is no level of its input's grid: quantize the tensor after it")
        capped = dataclasses.replace(x, name=walk.named(f"{node.name}/capped"), highest=round(highest), layer=None)
        x = walk.append(Minimum((x,), capped, round(highest)))
    name, lowest = walk.named(node.name), max(x.lowest, x.zero_point)
    output = dataclasses.replace(x, name=name, lowest=lowest, layer=node.name)
    return walk.append(Maximum((x,), output, x.zero_point, layers=(node.name,), sources=(walk.stored(node.inputs[0]),)))


def _add_layer(walk, node: Node, layer) -> Pending:
    return Pending(tuple(walk.stored(parent) for parent in node.inputs), (node.name,), close_add, rescales=False)


def _concatenate(walk, node: Node, layer) -> Pending:
    axis = layer.axis % (len(node.shape) + 1)
    inputs = tuple(walk.stored(parent) for parent in node.inputs)
    return Pending(inputs, (node.name,), functools.partial(_close_concatenation, axis))


def _close_concatenation(axis: int, walk, pending: Pending, output: Tensor, activation) -> Tensor:
    """CONCATENATION, after a MUL for each input that is not on the output's grid yet."""
    parts = tuple(_on_grid_of(output, walk, x, activation) for x in pending.inputs)
    return walk.append(Concatenation(parts, output, axis, layers=pending.layers, sources=pending.inputs))


def _on_grid_of(output: Tensor, walk, x: Tensor, activation) -> Tensor:
    has_its_grid = (x.scale, x.zero_point, x.step) == (output.scale, output.zero_point, output.step)
    if has_its_grid and output.lowest <= x.lowest and x.highest <= output.highest:
        return x
    name = walk.named(f"{output.name}/{x.name}")
    part = dataclasses.replace(output, name=name, shape=x.shape, layer=None)
    alone = requantized(x)
    return alone.close(walk, alone, part, activation)


def _on_its_grid(walk, node: Node, **changes) -> tuple[Tensor, Tensor]:
    """The input and output of a layer that keeps its input's grid."""
    x = walk.stored(node.inputs[0])
    return x, dataclasses.replace(x, name=walk.named(node.name), shape=node.shape, layer=node.name, **changes)


def _pool(walk, node: Node, layer) -> Tensor:
    x, output = _on_its_grid(walk, node)
    kind = MaxPool if isinstance(layer, _layers.MaxPooling2D) else AveragePool
    window = Window(tuple(layer.strides), layer.padding.upper())
    return walk.append(kind((x,), output, tuple(layer.pool_size), window, layers=(node.name,)))


def _global_pool(walk, node: Node, layer) -> Tensor:
    x, output = _on_its_grid(walk, node)
    kind = MaxPool if isinstance(layer, _layers.GlobalMaxPooling2D) else AveragePool
    if len(output.shape) == 3:
        return walk.append(kind((x,), output, x.shape[:2], Window(), layers=(node.name,)))
    pooled = dataclasses.replace(output, name=walk.named(f"{node.name}/pooled"), shape=(1, 1, x.shape[-1]), layer=None)
    walk.append(kind((x,), pooled, x.shape[:2], Window()))
    return walk.append(Reshape((pooled,), output, layers=(node.name,), sources=(x,)))


def _pad(walk, node: Node, layer) -> Tensor:
    x = walk.stored(node.inputs[0])
    # The zeros of the border occur whatever the tensor holds.
    ends = {"lowest": min(x.lowest, x.zero_point), "highest": max(x.highest, x.zero_point)}
    x, output = _on_its_grid(walk, node, **ends)
    return walk.append(Pad((x,), output, layer.padding, layers=(node.name,)))


def _reshape(walk, node: Node, layer) -> Tensor:
    x = walk.stored(node.inputs[0])
    if x.shape == node.shape:
        return x
    x, output = _on_its_grid(walk, node)
    return walk.append(Reshape((x,), output, layers=(node.name,)))


def _same(walk, node: Node, layer):
    return walk.value(node.inputs[0])


def _activation(walk, node: Node, layer):
    if layer.activation is keras.activations.linear:
        return _same(walk, node, layer)
    alone = canonical_layers(layer)[-1]
    if isinstance(alone, _layers.Activation):
        known = sorted(cls.__name__ for cls in (_layers.ReLU, _layers.Softmax))
        raise Problem(
            f"no operator for the activation {layer.get_config()['activation']!r}; there are {', '.join(known)} and "
            "linear: let the file end before it, and compute it behind the file"
        )
    return RULES[type(alone)](walk, node, alone)


def _softmax(walk, node: Node, layer) -> Tensor:
    x = walk.stored(node.inputs[0])
    require_true_scale(x, "SOFTMAX")
    output = Tensor(walk.named(node.name), node.shape, np.float32(1 / 256), -128, 1 / 256, layer=node.name)
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
    _layers.Concatenate: _concatenate,
    GridGlobalAveragePooling2D: _global_pool,
    GridAveragePooling2D: _pool,
    _layers.MaxPooling2D: _pool,
    _layers.GlobalMaxPooling2D: _global_pool,
    _layers.ZeroPadding2D: _pad,
    _layers.Flatten: _reshape,
    _layers.Reshape: _reshape,
    _layers.Dropout: _same,
    _layers.SpatialDropout2D: _same,
    _layers.Activation: _activation,
    _layers.Softmax: _softmax,
}
