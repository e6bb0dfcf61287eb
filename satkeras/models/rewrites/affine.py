"""`scale * x + offset` as a layer that folds into the one before it."""

import math

import numpy as np

from satkeras._compat import keras
from satkeras.models.rewrites.call import Call, Refused, activation

_layers = keras.layers
_EPSILON = 2.0**-10


def affine(call: Call, x, scale, offset):
    """`scale * x + offset`: a `Rescaling`, or with numbers for each channel a frozen batch norm.

    Numbers that vary over an image, such as a mask's, are those of the channels of one pixel that holds all values.

    Args:
      call: the call that computes it.
      x: a symbolic tensor.
      scale: a constant whose shape broadcasts to that of `x`.
      offset: the same.
    """
    scale, offset = _constant(scale, x), _constant(offset, x)
    if scale.size == offset.size == 1:
        if scale.item() == 1 and offset.item() == 0:
            return x
        return activation(call, _layers.Rescaling, x, scale=scale.item(), offset=offset.item())
    if any(math.prod(values.shape[:-1]) > 1 for values in (scale, offset)):
        shape = call.fixed(x)
        flat = call.apply(_layers.Reshape, x, "values", target_shape=(math.prod(shape),))
        scale, offset = (np.broadcast_to(values, (1, *shape)).ravel() for values in (scale, offset))
        return call.apply(_layers.Reshape, _batch_norm(call, flat, scale, offset), "image", target_shape=shape)
    if len(x.shape) == 3:
        return call.sequence(_batch_norm(call, call.image(x), scale, offset))
    return _batch_norm(call, x, scale, offset)


def _batch_norm(call: Call, x, scale, offset):
    if len(x.shape) not in (2, 4):
        raise Refused(f"needs a tensor of rank 2 to 4, gets rank {len(x.shape)}; put a Reshape before it")
    count = x.shape[-1]
    gamma, beta = (np.broadcast_to(values.ravel(), count).astype(np.float32) for values in (scale, offset))
    # With this epsilon the variance's root is 1, exactly.
    weights = [gamma, beta, np.zeros(count, np.float32), np.full(count, 1 - _EPSILON, np.float32)]
    return call.apply(_layers.BatchNormalization, x, "", weights, epsilon=_EPSILON, trainable=False)


def _constant(values, x) -> np.ndarray:
    """The numbers with an axis for each of the tensor's; one alone without axes."""
    values = np.asarray(values, np.float64)
    if values.size == 1:
        return values.reshape(())
    shape, own = (1,) * (len(x.shape) - values.ndim) + values.shape, (1, *x.shape[1:])
    if len(shape) != len(own) or any(size not in (1, there) for size, there in zip(shape, own, strict=True)):
        raise Refused(
            "needs a constant that is the same for every image and does not enlarge it, has the shape "
            f"{values.shape} beside images of {own[1:]}"
        )
    return values.reshape(shape)
