"""Rules of layers that move, pad or select values, and of pools: all on their input's grid."""

import dataclasses

from satkeras._compat import keras
from satkeras.models.graph import Node
from tflite_export.operators import (
    AveragePool,
    DepthToSpace,
    MaxPool,
    Pad,
    Reshape,
    ResizeBilinear,
    ResizeNearestNeighbor,
    SpaceToDepth,
    StridedSlice,
    Transpose,
    Window,
)
from tflite_export.plan import Tensor

_layers = keras.layers


def _on_its_grid(walk, node: Node, **changes) -> tuple[Tensor, Tensor]:
    """The input and output of a layer that keeps its input's grid."""
    x = walk.stored(node.inputs[0])
    return x, dataclasses.replace(x, name=walk.named(node.name), shape=node.shape, layer=node.name, **changes)


def pool(walk, node: Node, layer) -> Tensor:
    """MAX_POOL_2D or AVERAGE_POOL_2D."""
    x, output = _on_its_grid(walk, node)
    kind = MaxPool if isinstance(layer, _layers.MaxPooling2D) else AveragePool
    window = Window(tuple(layer.strides), layer.padding.upper())
    return walk.append(kind((x,), output, tuple(layer.pool_size), window, layers=(node.name,)))


def global_pool(walk, node: Node, layer) -> Tensor:
    """A pool of the whole image, and a RESHAPE where the result is a vector."""
    x, output = _on_its_grid(walk, node)
    kind = MaxPool if isinstance(layer, _layers.GlobalMaxPooling2D) else AveragePool
    if len(output.shape) == 3:
        return walk.append(kind((x,), output, x.shape[:2], Window(), layers=(node.name,)))
    pooled = dataclasses.replace(output, name=walk.named(f"{node.name}/pooled"), shape=(1, 1, x.shape[-1]), layer=None)
    walk.append(kind((x,), pooled, x.shape[:2], Window()))
    return walk.append(Reshape((pooled,), output, layers=(node.name,), sources=(x,)))


def pad(walk, node: Node, layer) -> Tensor:
    """PAD."""
    x = walk.stored(node.inputs[0])
    # The zeros of the border occur whatever the tensor holds.
    ends = {"lowest": min(x.lowest, x.zero_point), "highest": max(x.highest, x.zero_point)}
    x, output = _on_its_grid(walk, node, **ends)
    return walk.append(Pad((x,), output, layer.padding, layers=(node.name,)))


def reshape(walk, node: Node, layer) -> Tensor:
    """RESHAPE, where the shape changes."""
    x = walk.stored(node.inputs[0])
    if x.shape == node.shape:
        return x
    x, output = _on_its_grid(walk, node)
    return walk.append(Reshape((x,), output, layers=(node.name,)))


def permute(walk, node: Node, layer) -> Tensor:
    """TRANSPOSE."""
    x, output = _on_its_grid(walk, node)
    return walk.append(Transpose((x,), output, tuple(layer.dims), layers=(node.name,)))


def up_sample(walk, node: Node, layer) -> Tensor:
    """RESIZE_NEAREST_NEIGHBOR."""
    x, output = _on_its_grid(walk, node)
    return walk.append(ResizeNearestNeighbor((x,), output, layers=(node.name,)))


def interpolate(walk, node: Node, layer) -> Tensor:
    """RESIZE_BILINEAR."""
    x, output = _on_its_grid(walk, node)
    return walk.append(ResizeBilinear((x,), output, layers=(node.name,)))


def crop(walk, node: Node, layer) -> Tensor:
    """STRIDED_SLICE of what a Cropping2D leaves."""
    x, output = _on_its_grid(walk, node)
    begin = (*(before for before, _ in layer.cropping), 0)
    end = tuple(first + size for first, size in zip(begin, node.shape, strict=True))
    return walk.append(StridedSlice((x,), output, begin, end, (1, 1, 1), layers=(node.name,)))


def take_slice(walk, node: Node, layer) -> Tensor:
    """STRIDED_SLICE."""
    x, output = _on_its_grid(walk, node)
    return walk.append(StridedSlice((x,), output, layer.begin, layer.end, layer.strides, layers=(node.name,)))


def depth_to_space(walk, node: Node, layer) -> Tensor:
    """DEPTH_TO_SPACE."""
    x, output = _on_its_grid(walk, node)
    return walk.append(DepthToSpace((x,), output, layer.block_size, layers=(node.name,)))


def space_to_depth(walk, node: Node, layer) -> Tensor:
    """SPACE_TO_DEPTH."""
    x, output = _on_its_grid(walk, node)
    return walk.append(SpaceToDepth((x,), output, layer.block_size, layers=(node.name,)))
