"""`scale * x + offset` as a layer that folds into the one before it."""

import numpy as np

from satkeras._compat import keras
from satkeras.models.rewrites.call import Call, Refused, activation

_layers = keras.layers
_EPSILON = 2.0**-10


def affine(call: Call, x, scale, offset):
    """`scale * x + offset`: a `Rescaling`, or with numbers for each channel a frozen batch norm.

    Args:
      call: the call that computes it.
      x: a symbolic tensor.
      scale: a number, or one for each channel.
      offset: the same.
    """
    scale, offset = _per_channel(scale, x), _per_channel(offset, x)
    if scale.size == offset.size == 1:
        if scale.item() == 1 and offset.item() == 0:
            return x
        return activation(call, _layers.Rescaling, x, scale=scale.item(), offset=offset.item())
    if len(x.shape) == 3:
        return call.sequence(_batch_norm(call, call.image(x), scale, offset))
    return _batch_norm(call, x, scale, offset)


def _batch_norm(call: Call, x, scale, offset):
    if len(x.shape) not in (2, 4):
        raise Refused(f"needs a tensor of rank 2 to 4, gets rank {len(x.shape)}; put a Reshape before it")
    count = x.shape[-1]
    gamma, beta = (np.broadcast_to(values, count).astype(np.float32) for values in (scale, offset))
    # With this epsilon the variance's root is 1, exactly.
    weights = [gamma, beta, np.zeros(count, np.float32), np.full(count, 1 - _EPSILON, np.float32)]
    return call.apply(_layers.BatchNormalization, x, "", weights, epsilon=_EPSILON, trainable=False)


def _per_channel(values, x) -> np.ndarray:
    values = np.asarray(values, np.float64)
    count = 1 if values.size == 1 else x.shape[-1]
    if values.size != count or (count > 1 and values.shape[-1] != count):
        raise Refused(
            f"needs a constant that is one number, or one for each of the {x.shape[-1]} channels, has the shape "
            f"{values.shape}"
        )
    return values.reshape(count)
