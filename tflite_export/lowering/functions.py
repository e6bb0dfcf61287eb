"""Rules of activations that have an operator of their own: on a grid that it fixes, or on their input's."""

import dataclasses

import numpy as np

from satkeras.models.graph import Node
from satkeras.models.layers import fixed_grid
from satkeras.quantizers.int8 import narrowed
from tflite_export.lowering.grids import require_true_scale
from tflite_export.lowering.pending import Problem
from tflite_export.operators import L2Normalization, LeakyRelu, Logistic, Lookup, PRelu, Softmax, Tanh
from tflite_export.plan import Tensor
from tflite_export.portability.gates import chosen_tensor
from tflite_export.portability.plans import evidence


def softmax(walk, node: Node, layer) -> Tensor:
    """SOFTMAX."""
    return _on_fixed_grid(walk, node, layer, Softmax)


def sigmoid(walk, node: Node, layer) -> Tensor:
    """LOGISTIC."""
    return _on_fixed_grid(walk, node, layer, Logistic)


def tanh(walk, node: Node, layer) -> Tensor:
    """TANH."""
    return _on_fixed_grid(walk, node, layer, Tanh)


def unit_normalization(walk, node: Node, layer) -> Tensor:
    """L2_NORMALIZATION."""
    return _on_fixed_grid(walk, node, layer, L2Normalization)


def _on_fixed_grid(
    walk, node: Node, layer, kind: type[Softmax] | type[Logistic] | type[Tanh] | type[L2Normalization]
) -> Tensor:
    x = walk.stored(node.inputs[0])
    require_true_scale(x, kind.builtin)
    step, zero_point = fixed_grid(layer)
    output = Tensor(walk.named(node.name), node.shape, np.float32(step), zero_point, step, layer=node.name)
    return walk.append(kind((x,), output, layers=(node.name,)))


def chosen_levels(walk, node: Node, layer) -> Tensor:
    """GATHER; where every integer stays what it is, another scale for what writes them, or nothing."""
    x, codes, factor = walk.stored(node.inputs[0]), layer.codes.numpy(), float(layer.factor.numpy())
    if factor == 1 and layer.keeps_integers:
        return x
    if x.in_clip_units or not (0 < factor < 2 and np.abs(codes + 0.5).max() < 128):
        raise Problem("its numbers belong to another grid: decide them anew by tflite_export.portable_model")
    output = chosen_tensor(x, codes, factor, walk.named(node.name), node.name)
    writer = walk.operators[-1]
    is_last = writer.output is x and writer.layers and len(walk.graph.consumers(node.inputs[0])) == 1
    rescaled = writer.on_step(output, factor) if layer.keeps_integers and is_last else None
    # A multiplier is what it was, up to float32's rounding, which must not decide whether runtimes agree.
    if rescaled is not None and (evidence(rescaled)[1] is None or evidence(writer)[1] is not None):
        walk.operators[-1] = dataclasses.replace(rescaled, layers=(*writer.layers, node.name))
        return output
    return walk.append(Lookup((x,), output, narrowed(codes, np.int8), layers=(node.name,)))


def leaky_relu(walk, node: Node, layer) -> Tensor:
    """LEAKY_RELU."""
    x, output = _on_its_grid(walk, node, layer.slope)
    return walk.append(LeakyRelu((x,), output, layer.slope, layers=(node.name,)))


def prelu(walk, node: Node, layer) -> Tensor:
    """PRELU."""
    slopes, step = layer.alpha.numpy(), np.float32(layer.slope_step)
    if not np.isfinite(slopes).all():
        raise Problem("its slopes hold NaN or infinity: the training diverged; load weights from before")
    integers = narrowed(np.rint(slopes / step), np.int8)
    x, output = _on_its_grid(walk, node, integers * float(step))
    return walk.append(PRelu((x,), output, integers, step, 0, layers=(node.name,)))


def _on_its_grid(walk, node: Node, slope) -> tuple[Tensor, Tensor]:
    """The input and output of a function that multiplies negative values by a slope."""
    x = walk.stored(node.inputs[0])
    ends = (x.lowest - x.zero_point) * np.array([np.min(slope), np.max(slope), 0.0])
    lowest, highest = (
        round(float(end)) + x.zero_point for end in (ends.min(), max(ends.max(), x.highest - x.zero_point))
    )
    output = dataclasses.replace(
        x,
        name=walk.named(node.name),
        shape=node.shape,
        layer=node.name,
        lowest=max(lowest - 1, -128),
        highest=min(highest, 127),
    )
    return x, output
