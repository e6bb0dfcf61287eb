"""TensorFlow's operators of images: resizing, windows, blocks, flips; each row with its function's signature."""

import numpy as np

from satkeras._compat import keras
from satkeras.models.core import DepthToSpace, SpaceToDepth
from satkeras.models.rewrites.call import Call, Refused
from satkeras.models.rewrites.movement import concatenate, reversed_along, sliced

_layers = keras.layers


def _resize(call: Call, images, size, method="bilinear", *others, **options):
    if others or any(value for key, value in options.items() if key != "name"):
        raise Refused("needs tf.image.resize(images, size, method) without more options")
    return enlarged(call, images, np.asarray(size).tolist(), getattr(method, "value", method))


def enlarged(call: Call, x, size, interpolation: str):
    """An image whose pixels are repeated, or interpolated, a whole number of times."""
    before = call.fixed(x)[:2]
    whole = not any(new % old for new, old in zip(size, before, strict=True))
    if not whole or interpolation not in ("nearest", "bilinear"):
        raise Refused(
            f"resizes {before} to {tuple(size)} by {interpolation!r}; needs a whole multiple of the size, and "
            "'nearest' or 'bilinear'"
        )
    factors = tuple(new // old for new, old in zip(size, before, strict=True))
    return x if factors == (1, 1) else call.apply(_layers.UpSampling2D, x, size=factors, interpolation=interpolation)


def _resize_nearest(call: Call, images, size, align_corners=False, half_pixel_centers=False, name=None):
    if align_corners:
        raise Refused("needs align_corners=False")
    return enlarged(call, images, np.asarray(size).tolist(), "nearest")


def _pooled(cls):
    def row(call: Call, input, ksize, strides, padding, data_format="NHWC", name=None):  # noqa: A002
        window = {"pool_size": in_space(ksize), "strides": in_space(strides)}
        if data_format != "NHWC" or not isinstance(padding, str):
            raise Refused("needs data_format='NHWC' and padding 'SAME' or 'VALID'")
        return call.apply(cls, input, padding=padding.lower(), **window)

    return row


def in_space(sizes) -> tuple[int, int]:
    """Strides or the like, one number, two or those of all four axes, over height and width."""
    sizes = np.ravel(sizes).tolist()
    return {1: (sizes[0],) * 2, 2: tuple(sizes), 4: tuple(sizes[1:3])}[len(sizes)]


def _block(cls):
    def row(call: Call, input, block_size, data_format="NHWC", name=None):  # noqa: A002
        if data_format != "NHWC":
            raise Refused(f"needs data_format='NHWC', has {data_format!r}")
        return call.apply(cls, input, block_size=int(block_size))

    return row


def _flipped(axis: int):
    return lambda call, image, name=None: reversed_along(call, image, axis)


def _central_crop(call: Call, image, central_fraction):
    sides = (int((size - size * central_fraction) / 2) for size in call.fixed(image)[:2])
    return sliced(call, image, [slice(None), *(slice(side, -side or None) for side in sides)])


def _in_color(call: Call, images, name=None):
    return concatenate(call, [images] * 3, 3)


OPERATORS = {
    "image.resize": _resize,
    "image.flip_left_right": _flipped(2),
    "image.flip_up_down": _flipped(1),
    "image.central_crop": _central_crop,
    "image.grayscale_to_rgb": _in_color,
    "compat.v1.image.resize_nearest_neighbor": _resize_nearest,
    "nn.max_pool2d": _pooled(_layers.MaxPooling2D),
    "nn.avg_pool2d": _pooled(_layers.AveragePooling2D),
    "nn.depth_to_space": _block(DepthToSpace),
    "nn.space_to_depth": _block(SpaceToDepth),
}
