"""What each Keras layer does to the value it reads: a rule for each class, in the table `RULES`.

A rule gets the walk of `lower.py`, the layer's call and the layer itself (out of its wrapper). It returns the call's
result: a `Tensor` that an operator writes, a `Pending` result that no operator has closed yet, or None for an input.
It raises `Problem` where the layer cannot be lowered exactly.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from satkeras._compat import keras
from satkeras.models.activations import Elementwise, GeneralReLU, Sigmoid, Tanh
from satkeras.models.canonical import canonical_parts
from satkeras.models.channel_scale import ChannelScale
from satkeras.models.channel_scales import even_channels
from satkeras.models.chosen_levels import ChosenLevels
from satkeras.models.core import Clip, DepthToSpace, Mean, Slice, SpaceToDepth
from satkeras.models.fixed_grids import GridSigmoid, GridSoftmax, GridTanh, GridUnitNormalization
from satkeras.models.graph import Node
from satkeras.models.insertion import has_quantizer, quantizes_tensor
from satkeras.models.layers import ONLY_IN_TRAINING
from satkeras.models.pooling import GridAveragePooling2D, GridGlobalAveragePooling2D
from satkeras.models.relus import AbsorbedReLU, MaskedReLU, RoundedBias
from satkeras.models.resizing import GridBilinearUpSampling2D
from satkeras.models.slopes import GridLeakyReLU, GridPReLU
from satkeras.quantizers.int8 import narrowed, weight_spread
from satkeras.reports.integers import integer_weight
from tflite_export.lowering import arithmetic, functions, joins, lookups, moves
from tflite_export.lowering.closing import close_mean, close_sum, close_transposed, identity, requantized
from tflite_export.lowering.pending import Pending, Problem, WeightedSum
from tflite_export.operators import (
    Convolution,
    DepthwiseConvolution,
    FullyConnected,
    Maximum,
    Minimum,
    TransposeConvolution,
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
    transposed = isinstance(layer, _layers.Conv2DTranspose)
    if transposed:
        kind, weights = TransposeConvolution, weights.swapaxes(2, 3)
    channels = weights.shape[-1]
    bias = layer.bias.numpy().astype(np.float64) if layer.use_bias else np.zeros(channels)
    step = np.broadcast_to(params.scale.astype(np.float64), channels)
    spread = weight_spread((params.qmin, params.qmax), params.zero_point)
    named = {"call": node.name, "even": even_channels(node.layer)}
    total = WeightedSum(kind, walk.kernel_named(layer.name), weights, spread, step, bias, window, **named)
    if transposed:
        return Pending((x,), (node.name,), close_transposed, total, rescales=False)
    return Pending((x,), (node.name,), close_sum, total)


def _batch_norm(walk, node: Node, layer) -> Pending:
    mean, variance = layer.moving_mean.numpy().astype(np.float64), layer.moving_variance.numpy().astype(np.float64)
    gamma = layer.gamma.numpy().astype(np.float64) if layer.scale else 1.0
    beta = layer.beta.numpy().astype(np.float64) if layer.center else 0.0
    factor = gamma / np.sqrt(variance + layer.epsilon)
    if not np.isfinite([factor, mean * factor + beta]).all():
        raise Problem("its weights hold NaN or infinity")
    return _folded(walk, node, "batch norm", factor, lambda bias: (bias - mean) * factor + beta)


def _folded(walk, node: Node, what: str, factor, moved: Callable) -> Pending:
    """The sum that a layer reads times `factor`, its bias `moved`."""
    before = walk.value(node.inputs[0])
    if isinstance(before, Tensor):
        before = identity(before)
    if before.total is None or before.relu:
        raise Problem(f"a {what} cannot fold into {before.layers}: quantize the tensor between them")
    total = before.total
    total = dataclasses.replace(total, step=total.step * factor, bias=moved(total.bias), call=node.name)
    return before.then(node.name, total=total)


def _relu(walk, node: Node, layer) -> "Pending | Tensor":
    if layer.negative_slope or layer.threshold:
        raise Problem("needs negative_slope=0 and threshold=0")
    before = walk.value(node.inputs[0])
    clips = layer.max_value is not None and not isinstance(layer, AbsorbedReLU)
    ceiling = float(layer.max_value) if clips else np.inf
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


def _mean(walk, node: Node, layer) -> Pending:
    """A depthwise convolution of ones over the whole image: AVERAGE_POOL_2D cannot leave its input's grid."""
    x = walk.stored(node.inputs[0])
    places, channels = math.prod(x.shape[:2]), x.shape[-1]
    spread = 127 if 127 * 255 * places < 2**31 else 1  # as long as int32 holds the sum
    ones, step = np.ones(x.shape, np.int16), np.full(channels, 1 / places)
    kernel = f"{node.name}/mean", ones, spread, step, np.zeros(channels)
    return Pending((x,), (node.name,), close_mean, WeightedSum(DepthwiseConvolution, *kernel, call=node.name))


def _rescaling(walk, node: Node, layer) -> Pending:
    return _folded(walk, node, "Rescaling", layer.scale, lambda bias: bias * layer.scale + layer.offset)


def _channel_scale(walk, node: Node, layer) -> Pending:
    factor, offset = layer.factor.numpy(), layer.offset.numpy()
    if not (np.isfinite([factor, offset]).all() and (factor > 0).all()):
        raise Problem("its factors must be above 0 and its numbers finite: it belongs to tflite_export.portable_model")
    before = walk.value(node.inputs[0])
    total = before.total
    scaled = _folded(walk, node, "channel scale", factor, lambda bias: bias * factor + offset)
    marked = {"call": total.call, "factor": factor, "shift": scaled.total.bias - total.bias}
    return dataclasses.replace(scaled, total=dataclasses.replace(scaled.total, **marked))


def _rounded_bias(walk, node: Node, layer) -> "Pending | Tensor":
    before = walk.value(node.inputs[0])
    return before if isinstance(before, Tensor) else before.then(node.name)


def _same(walk, node: Node, layer):
    return walk.value(node.inputs[0])


def _activation(walk, node: Node, layer):
    if layer.activation is keras.activations.linear:
        return _same(walk, node, layer)
    *before, alone = [part.layer for part in canonical_parts(layer)]
    if before or type(alone) is _layers.Activation or type(alone) not in RULES:
        raise Problem(
            f"the activation {layer.get_config()['activation']!r} needs quantizers of its own: put it into the model "
            "before quantize_model, or compute it behind the file"
        )
    return RULES[type(alone)](walk, node, alone)


RULES: dict[type, Callable] = {
    _layers.InputLayer: lambda walk, node, layer: None,
    _layers.Conv2D: _linear_layer,
    _layers.DepthwiseConv2D: _linear_layer,
    _layers.Conv2DTranspose: _linear_layer,
    _layers.Dense: _linear_layer,
    _layers.BatchNormalization: _batch_norm,
    _layers.Rescaling: _rescaling,
    ChannelScale: _channel_scale,
    RoundedBias: _rounded_bias,
    _layers.ReLU: _relu,
    AbsorbedReLU: _relu,
    MaskedReLU: _relu,
    _layers.Add: arithmetic.add,
    _layers.Subtract: arithmetic.subtract,
    _layers.Multiply: arithmetic.multiply,
    _layers.Concatenate: joins.concatenate,
    _layers.Maximum: joins.maximum,
    _layers.Minimum: joins.minimum,
    Mean: _mean,
    GridGlobalAveragePooling2D: moves.global_pool,
    GridAveragePooling2D: moves.pool,
    GridLeakyReLU: functions.leaky_relu,
    GridPReLU: functions.prelu,
    ChosenLevels: functions.chosen_levels,
    _layers.Softmax: functions.softmax,
    GridSoftmax: functions.softmax,
    _layers.UnitNormalization: functions.unit_normalization,
    GridUnitNormalization: functions.unit_normalization,
    Sigmoid: functions.sigmoid,
    GridSigmoid: functions.sigmoid,
    Tanh: functions.tanh,
    GridTanh: functions.tanh,
    Elementwise: lookups.look_up,
    Clip: lookups.look_up,
    GeneralReLU: lookups.look_up,
    _layers.ELU: lookups.look_up,
    _layers.ThresholdedReLU: lookups.look_up,
    _layers.MaxPooling2D: moves.pool,
    _layers.GlobalMaxPooling2D: moves.global_pool,
    _layers.UpSampling2D: moves.up_sample,
    GridBilinearUpSampling2D: moves.interpolate,
    _layers.ZeroPadding2D: moves.pad,
    _layers.Cropping2D: moves.crop,
    _layers.Permute: moves.permute,
    _layers.Flatten: moves.reshape,
    _layers.Reshape: moves.reshape,
    Slice: moves.take_slice,
    DepthToSpace: moves.depth_to_space,
    SpaceToDepth: moves.space_to_depth,
    _layers.Activation: _activation,
} | dict.fromkeys(ONLY_IN_TRAINING, _same)
