"""Rules of layers that join tensors, or choose among them: one grid for all, which is their result's.

What waits for its grid is stored on the join's own; a stored tensor that lies on another is brought there by a MUL.
"""

import dataclasses
import functools

import numpy as np

from satkeras.models.graph import Node
from tflite_export.lowering.closing import close_on, requantized
from tflite_export.lowering.pending import Pending
from tflite_export.operators import Concatenation, MaximumOfTwo, MinimumOfTwo
from tflite_export.plan import Activation, Tensor


def concatenate(walk, node: Node, layer) -> Pending:
    """CONCATENATION."""
    axis = layer.axis % (len(node.shape) + 1)

    def emit(parts, output: Tensor, **covered) -> Tensor:
        return walk.append(Concatenation(parts, output, axis, **covered))

    return _join(walk, node, emit)


def maximum(walk, node: Node, layer) -> Pending:
    """MAXIMUM, one after the other."""
    return _join(walk, node, functools.partial(_chain, walk, MaximumOfTwo))


def minimum(walk, node: Node, layer) -> Pending:
    """MINIMUM, one after the other."""
    return _join(walk, node, functools.partial(_chain, walk, MinimumOfTwo))


def _join(walk, node: Node, emit) -> Pending:
    alone = [len(walk.graph.consumers(parent)) == 1 for parent in node.inputs]
    inputs = tuple(
        walk.value(parent) if waits else walk.stored(parent) for parent, waits in zip(node.inputs, alone, strict=True)
    )
    return Pending(inputs, (node.name,), functools.partial(_close, emit, node.inputs), rescales=False)


def _close(emit, parents, walk, pending: Pending, output: Tensor, activation: Activation) -> Tensor:
    parts = tuple(_on_grid_of(output, walk, *one) for one in zip(pending.inputs, parents, strict=True))
    sources = tuple(x if isinstance(x, Tensor) else part for x, part in zip(pending.inputs, parts, strict=True))
    return emit(parts, output, layers=pending.layers, sources=sources)


def _on_grid_of(output: Tensor, walk, x: "Tensor | Pending", node: Node) -> Tensor:
    if isinstance(x, Pending):
        x = close_on(walk, x, dataclasses.replace(output, name=walk.named(node.name), shape=node.shape, layer=None))
        # An ADD may have moved its scale by some millionths, which is another grid to a runtime.
    has_its_grid = (x.scale, x.zero_point, x.step) == (output.scale, output.zero_point, output.step)
    if has_its_grid and output.lowest <= x.lowest and x.highest <= output.highest:
        return x
    name = walk.named(f"{output.name}/{x.name}")
    return close_on(walk, requantized(x), dataclasses.replace(output, name=name, shape=x.shape, layer=None))


def _chain(walk, kind, parts, output: Tensor, **covered) -> Tensor:
    total, *others, last = parts
    for part in others:
        shape = np.broadcast_shapes(total.shape, part.shape)
        between = dataclasses.replace(output, name=walk.named(f"{output.name}/between"), shape=shape, layer=None)
        total = walk.append(kind((total, part), between))
    return walk.append(kind((total, last), output, **covered))
