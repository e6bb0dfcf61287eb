"""`scale * x + offset`: at the input it is the input's grid, anywhere else a layer that folds into the one before it."""

import dataclasses

import numpy as np

from satkeras._compat import keras
from satkeras.models.core import InputRescaling
from satkeras.models.rewrites.call import Call, Refused, activation

_layers = keras.layers
_EPSILON = 2.0**-10


@dataclasses.dataclass(frozen=True)
class Pixels:
    """A tensor that is still the model's input, in other units.

    Attributes:
      source: the tensor that one Rescaling makes it from.
      scale: of that Rescaling.
      offset: of that Rescaling.
      before: scale and offset of `source` itself, counted from the input's real values.
    """

    source: object
    scale: float = 1.0
    offset: float = 0.0
    before: tuple[float, float] = (1.0, 0.0)

    def then(self, scale: float, offset: float) -> "Pixels":
        """The same pixels in units of another kind."""
        return dataclasses.replace(self, scale=scale * self.scale, offset=scale * self.offset + offset)

    def on_grid(self, low: float, high: float) -> "Pixels | None":
        """The nearest units in which a code stands for 0.0; None if no code is as near as half a step.

        Args:
          low: the real value of the input's code 0.
          high: that of code 255.
        """
        scale = self.scale * self.before[0]
        offset = self.scale * self.before[1] + self.offset
        if scale <= 0:
            return None
        code = -(low + offset / scale) / ((high - low) / 255)
        if not -0.5 <= code <= 255.5:
            return None
        nearest = np.clip(np.rint(code), 0, 255)
        moved = (code - nearest) * (high - low) / 255 * scale
        return dataclasses.replace(self, offset=self.offset + float(moved))


def affine(call: Call, x, scale, offset):
    """`scale * x + offset` in core layers.

    A single scale at the model's input is a `Rescaling`, behind which the input is quantized: the file takes the pixels
    as they are. Where no code would stand for 0.0 exactly, as none does in `x / 127.5 - 1`, the offset is moved to the
    nearest, by half a code at most; every file's input is rounded so.

    Anywhere else it is a `Rescaling`, or with numbers for each channel a frozen batch norm.

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
        pixels = call.core.pixels.get(id(x))
        if pixels is not None:
            pixels = pixels.then(scale.item(), offset.item())
            moved = pixels.on_grid(*call.input_range)
            if moved is not None:
                result = call.apply(InputRescaling, moved.source, scale=moved.scale, offset=moved.offset)
                return call.core.remember(call.core.pixels, result, pixels)
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
