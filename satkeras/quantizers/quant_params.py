"""The contract between training and export: what integer a number on a quantizer's grid is."""

import dataclasses

import numpy as np

from satkeras.quantizers.int8 import narrowed


@dataclasses.dataclass(frozen=True, eq=False)
class QuantParams:
    """An integer grid: `real = scale * (integer - zero_point)`, integers `qmin`, `qmin + spacing`, ..., `qmax`.

    Attributes:
      scale: float32, a scalar (per tensor) or shape `(n,)` (per axis); the real size of one integer step.
      zero_point: the integer that stands for 0.0; it need not be a level of the grid.
      qmin: the smallest integer of the grid.
      qmax: the largest integer of the grid.
      axis: the axis of the tensor that `scale` runs along, None when `scale` is a scalar.
      spacing: how far the levels lie apart, in integers.
    """

    scale: np.ndarray
    zero_point: int
    qmin: int
    qmax: int
    axis: int | None = None
    spacing: int = 1

    def __post_init__(self):
        scale = np.asarray(self.scale, np.float32)
        object.__setattr__(self, "scale", scale)
        if not np.all(np.isfinite(scale) & (scale > 0)):
            raise ValueError(f"A grid needs a positive, finite scale. Received: scale={scale}")
        if self.qmin >= self.qmax:
            raise ValueError(f"A grid needs qmin < qmax. Received: qmin={self.qmin}, qmax={self.qmax}")
        if (self.axis is None) != (scale.ndim == 0):
            raise ValueError(f"axis is for per-axis scales. Received: axis={self.axis}, scale of shape {scale.shape}")
        if self.spacing < 1 or (self.qmax - self.qmin) % self.spacing:
            raise ValueError(
                "A grid needs a positive spacing that leads from qmin to qmax. Received: "
                f"spacing={self.spacing}, qmin={self.qmin}, qmax={self.qmax}"
            )

    def _scale_for(self, rank: int) -> np.ndarray:
        if self.axis is None:
            return self.scale
        shape = [1] * rank
        shape[self.axis] = -1
        return self.scale.reshape(shape)

    def quantize(self, values) -> np.ndarray:
        """The levels (int32) nearest to real `values`, clipped to the grid; at spacing 1 ties go to even integers."""
        values = np.asarray(values, np.float32)
        shift = (self.qmin - self.zero_point) % self.spacing
        steps = np.rint((values / self._scale_for(values.ndim) - shift) / self.spacing)
        integers = steps * self.spacing + shift + self.zero_point
        return narrowed(np.clip(integers, self.qmin, self.qmax), np.int32)

    def dequantize(self, integers) -> np.ndarray:
        """The real values (float32) of `integers`."""
        integers = np.asarray(integers)
        return ((integers - self.zero_point) * self._scale_for(integers.ndim)).astype(np.float32)

    def integers_of(self, values) -> np.ndarray:
        """The integers (int32) of fake-quantized `values`.

        Raises:
          ValueError: a value is not on the grid, within what float32 rounding explains, or lies between its levels.
        """
        values = np.asarray(values, np.float32)
        if np.isnan(values).any():
            farthest = np.nan
        else:
            integers = self.quantize(values)
            off = values / self._scale_for(values.ndim)
            off -= integers - self.zero_point
            farthest = np.abs(off, out=off).max(initial=0)
        if not farthest < 1e-3:
            raise ValueError(
                f"Values must lie on the grid {self}. Received: a value {farthest:g} of a step away. A quantizer "
                "must round to the levels and the scale that it states"
            )
        return integers


def activation_levels(num_bits: int, signed: bool) -> tuple[int, int]:
    """The smallest and largest integer of an activation grid, with 0 always a level.

    Unsigned: 0 .. 2^k - 1. Signed: -n .. n with n = 2^(k-1) - 1, because a convolution pads with 0 and TFLite needs an
    integer zero point; at 8 bits -128 .. 127, which is where int8 saturates by itself.
    """
    if not signed:
        return 0, 2**num_bits - 1
    top = 2 ** (num_bits - 1) - 1
    return (-128 if num_bits == 8 else -top), top
