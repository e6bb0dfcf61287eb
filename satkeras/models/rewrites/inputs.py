"""What models do to their input: new units, and what they do in training alone."""

import numpy as np

from satkeras._compat import keras
from satkeras.models.layers import ONLY_IN_TRAINING
from satkeras.models.rewrites.affine import affine
from satkeras.models.rewrites.call import Call, Refused

_layers = keras.layers
RESIZED = (_layers.Resizing, _layers.CenterCrop)


def _rescaling(call: Call, x):
    return affine(call, x, call.layer.scale, call.layer.offset)


def _normalization(call: Call, x):
    layer = call.layer
    mean, deviation = np.asarray(layer.mean), np.maximum(np.sqrt(np.asarray(layer.variance)), keras.backend.epsilon())
    if getattr(layer, "invert", False):
        return affine(call, x, *_single(deviation, mean))
    return affine(call, x, *_single(1 / deviation, -mean / deviation))


def _single(scale: np.ndarray, offset: np.ndarray):
    """Scale and offset as single numbers, where all channels have the same."""
    same = np.ptp(scale) == 0 and np.ptp(offset) == 0
    return (scale.flat[0], offset.flat[0]) if same else (scale, offset)


def _training_only(call: Call, x, *args, **kwargs):
    return call.sequence(call.kept(call.image(x))) if id(x) in call.core.images else call.kept(x)


def _resized(call: Call, x, *args, **kwargs):
    size = (call.layer.height, call.layer.width)
    raise Refused(
        f"no kernel resizes as it does; feed images of {size[0]} x {size[1]} pixels, resized in the data pipeline, to "
        "the layers behind it"
    )


REWRITES = {
    _layers.Rescaling: _rescaling,
    _layers.Normalization: _normalization,
    **dict.fromkeys(RESIZED, _resized),
    **dict.fromkeys(set(ONLY_IN_TRAINING) - {_layers.SpatialDropout1D}, _training_only),
}
