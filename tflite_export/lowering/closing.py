"""How a pending result becomes operators, once the grid it is stored on is known."""

import dataclasses

import numpy as np

from tflite_export.lowering.additions import add_operator, copy_for_add
from tflite_export.lowering.pending import Pending, WeightedSum
from tflite_export.lowering.requantize import linear_operator, multiply_operator
from tflite_export.operators import (
    Add,
    Convolution,
    DepthwiseConvolution,
    FullyConnected,
    Maximum,
    Minimum,
    Reshape,
    Subtract,
)
from tflite_export.plan import Activation, Tensor


def requantized(x: Tensor) -> Pending:
    """A stored tensor as the result of a multiplication by 1: the way to another grid."""
    return Pending((x,), (), close_product)


def identity(x: Tensor) -> Pending:
    """A stored tensor as the result of a 1x1 depthwise convolution: the way to rescale its channels, or shift them."""
    channels = x.shape[-1]
    ones = np.ones((1, 1, channels), np.int16)
    total = WeightedSum(DepthwiseConvolution, f"{x.name}/ones", ones, 127, np.ones(channels), np.zeros(channels))
    return Pending((x,), (), close_sum, total)


def close_on(walk, pending: Pending, output: Tensor) -> Tensor:
    """Emits the operators of a pending result onto a grid: fused clamps, or a MINIMUM and a MAXIMUM, clip it."""
    if pending.relu and output.lowest < output.zero_point:
        output = dataclasses.replace(output, lowest=output.zero_point)
    ceiling = np.floor(output.zero_point + pending.ceiling / output.step + 0.5)
    if ceiling < output.highest:
        return _clipped(walk, pending, output, Minimum, int(ceiling))
    if output.lowest == -128:
        return pending.close(walk, pending, output, "none")
    if output.lowest == output.zero_point:
        return pending.close(walk, pending, output, "relu")
    # A signed grid below 8 bits: int8's saturation is the upper clip.
    return _clipped(walk, pending, output, Maximum, output.lowest)


def _clipped(walk, pending: Pending, output: Tensor, kind: type[Maximum] | type[Minimum], limit: int) -> Tensor:
    """The result without one of its clips, and an operator for that one."""
    unclipped = dataclasses.replace(output, name=walk.named(f"{output.name}/unclipped"), layer=None)
    if kind is Maximum:
        unclipped = dataclasses.replace(unclipped, lowest=-128)
        result = pending.close(walk, pending, unclipped, "none")
    else:  # a layer's own clip: what comes before it completes no layer
        result = close_on(walk, dataclasses.replace(pending, layers=(), ceiling=np.inf), unclipped)
        output = dataclasses.replace(output, highest=limit)
    writer = walk.operators[-1]
    sources = (writer.sources or writer.inputs) if pending.total is None else pending.inputs
    return walk.append(kind((result,), output, limit, layers=pending.layers, sources=sources))


def close_transposed(walk, pending: Pending, output: Tensor, activation: Activation) -> Tensor:
    """TRANSPOSE_CONV, and a MAXIMUM for a lower clip, which it cannot fuse."""
    if activation == "none":
        return walk.append(linear_operator(pending, pending.inputs[0], output, activation))
    before = dataclasses.replace(pending, layers=()) if pending.relu else pending
    unclipped = dataclasses.replace(output, name=walk.named(f"{output.name}/unclipped"), lowest=-128, layer=None)
    result = walk.append(linear_operator(before, pending.inputs[0], unclipped, "none"))
    return walk.append(Maximum((result,), output, output.lowest, layers=pending.layers, sources=pending.inputs))


def close_add(
    walk, pending: Pending, output: Tensor, activation: Activation, kind: type[Add] | type[Subtract] = Add
) -> Tensor:
    """ADD or SUB, after a MUL for an input on a grid that it cannot read."""
    sources = pending.inputs
    inputs = []
    for x, other in zip(sources, reversed(sources), strict=True):
        copy = copy_for_add(x, other, output)
        if copy is not x:
            copy = dataclasses.replace(copy, name=walk.named(copy.name))
            walk.append(multiply_operator(requantized(x), copy, "none"))
        inputs.append(copy)
    operator = add_operator(dataclasses.replace(pending, inputs=tuple(inputs)), output, activation, kind)
    return walk.append(dataclasses.replace(operator, sources=sources))


def close_product(walk, pending: Pending, output: Tensor, activation: Activation) -> Tensor:
    """MUL by a constant."""
    return walk.append(multiply_operator(pending, output, activation))


def close_mean(walk, pending: Pending, output: Tensor, activation: Activation) -> Tensor:
    """DEPTHWISE_CONV_2D over the whole image, and a RESHAPE where the result is a vector."""
    (x,) = pending.inputs
    if len(output.shape) == 3:
        return walk.append(linear_operator(pending, x, output, activation))
    pixel = dataclasses.replace(output, name=walk.named(f"{output.name}/pixel"), shape=(1, 1, x.shape[-1]), layer=None)
    operator = linear_operator(pending, x, pixel, activation)
    walk.append(operator)
    return walk.append(Reshape((operator.output,), output))


def close_sum(walk, pending: Pending, output: Tensor, activation: Activation) -> Tensor:
    """CONV_2D, DEPTHWISE_CONV_2D or FULLY_CONNECTED, between RESHAPEs where a vector needs an image's operator."""
    (x,), total = pending.inputs, pending.total
    if total.kind is FullyConnected or len(x.shape) == 3:
        operator = linear_operator(pending, x, output, activation)
        if total.kind is not FullyConnected or len(np.unique(operator.weight_scale)) == 1:
            return walk.append(operator)
        # A scale for each output, as batch norm leaves behind, is a convolution's.
        weights = total.weights.reshape(1, 1, *total.weights.shape)
        pending = dataclasses.replace(pending, total=dataclasses.replace(total, kind=Convolution, weights=weights))
    ones = (1,) * (3 - len(x.shape))
    image = dataclasses.replace(x, name=walk.named(f"{output.name}/image"), shape=(*ones, *x.shape), layer=None)
    pixel = dataclasses.replace(
        output, name=walk.named(f"{output.name}/pixel"), shape=(*ones, *output.shape), layer=None
    )
    walk.append(Reshape((x,), image))
    operator = linear_operator(pending, image, pixel, activation)
    # An ADD's scale may be moved, a sum's never is: the copy has the sum's grid.
    walk.append(operator)
    return walk.append(Reshape((operator.output,), output))
