"""Layers of volumes (d, h, w, c), each dimension by itself: first on planes (d, h, w c), then on rows (d h, w, c)."""

from collections.abc import Callable

from satkeras._compat import keras
from satkeras.models.rewrites.call import Call, Refused
from satkeras.models.rewrites.linear import require_channels_last

_layers = keras.layers


def _in_turn(cls: type, arguments: Callable):
    """A row that applies a 2-D layer to depth and height, then to the width.

    Args:
      cls: the 2-D layer.
      arguments: from the 3-D layer to the arguments of both.
    """

    def row(call: Call, x):
        depth, height, width, channels = _sizes(call, x)
        outer, inner = arguments(call.layer)
        planes = call.apply(_layers.Reshape, x, "planes", target_shape=(depth, height, width * channels))
        planes = call.apply(cls, planes, "depth_and_height", **outer)
        depth, height, _ = call.fixed(planes)
        rows = call.apply(_layers.Reshape, planes, "rows", target_shape=(depth * height, width, channels))
        rows = call.apply(cls, rows, "width", **inner)
        _, width, _ = call.fixed(rows)
        return call.apply(_layers.Reshape, rows, target_shape=(depth, height, width, channels))

    return row


def _sizes(call: Call, x) -> tuple[int, ...]:
    require_channels_last(call)
    sizes = call.fixed(x)
    if len(sizes) != 4:
        raise Refused(f"needs volumes of shape (depth, height, width, channels), gets {sizes}; use its 2-D class")
    return sizes


def _window(layer) -> tuple[dict, dict]:
    (*size, width), (*strides, stride) = layer.pool_size, layer.strides
    outer = {"pool_size": tuple(size), "strides": tuple(strides), "padding": layer.padding}
    return outer, {"pool_size": (1, width), "strides": (1, stride), "padding": layer.padding}


def _borders(argument: str):
    def arguments(layer) -> tuple[dict, dict]:
        *outer, width = getattr(layer, argument)
        return {argument: tuple(outer)}, {argument: ((0, 0), width)}

    return arguments


def _factors(layer) -> tuple[dict, dict]:
    *outer, width = layer.size
    return {"size": tuple(outer)}, {"size": (1, width)}


def _global_pool(cls: type):
    def row(call: Call, x):
        depth, height, width, channels = _sizes(call, x)
        rows = call.apply(_layers.Reshape, x, "rows", target_shape=(depth * height, width, channels))
        pooled = call.apply(cls, rows)
        if not call.layer.keepdims:
            return pooled
        return call.apply(_layers.Reshape, pooled, "volume", target_shape=(1, 1, 1, channels))

    return row


REWRITES = {
    _layers.MaxPooling3D: _in_turn(_layers.MaxPooling2D, _window),
    _layers.AveragePooling3D: _in_turn(_layers.AveragePooling2D, _window),
    _layers.ZeroPadding3D: _in_turn(_layers.ZeroPadding2D, _borders("padding")),
    _layers.Cropping3D: _in_turn(_layers.Cropping2D, _borders("cropping")),
    _layers.UpSampling3D: _in_turn(_layers.UpSampling2D, _factors),
    _layers.GlobalMaxPooling3D: _global_pool(_layers.GlobalMaxPooling2D),
    _layers.GlobalAveragePooling3D: _global_pool(_layers.GlobalAveragePooling2D),
}
