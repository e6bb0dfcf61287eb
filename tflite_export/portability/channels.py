"""The numbers of a weighted sum that decide whether runtimes agree on it, whatever its operator and its file."""

import dataclasses

import numpy as np

from tflite_export.portability.rounding_rules import Scales

# Of a channel without weights, whose only sum is its bias: then every bias has a residue of its own, near enough.
NO_WEIGHTS = 127


@dataclasses.dataclass(frozen=True, eq=False)
class Channels:
    """The output channels of one operator: channel c's sums are `bias + g n`, n an integer, within its reach.

    g is the greatest common divisor of the channel's weights.

    Attributes:
      divisor: int64 (channels,), g.
      below: int64 (channels,), the lowest sum without the bias that inputs can make, at most 0.
      above: int64 (channels,), the highest, at least 0.
      bias: int64 (channels,).
      input_scale: float32.
      weight_scale: float32 (channels,).
      output_scale: float32.
      lowest: the lowest level, in output steps from the zero point, that the clamp lets through.
      highest: the highest.
      one_scale: whether the file has one weight scale for all channels.
    """

    divisor: np.ndarray
    below: np.ndarray
    above: np.ndarray
    bias: np.ndarray
    input_scale: np.float32
    weight_scale: np.ndarray
    output_scale: np.float32
    lowest: int
    highest: int
    one_scale: bool = False

    @property
    def scales(self) -> Scales:
        """Of all channels."""
        return self.scales_of(self.weight_scale)

    def scales_of(self, weight_scale: np.ndarray) -> Scales:
        """With other scales of the weights, of any shape."""
        return Scales(self.input_scale, weight_scale, self.output_scale, self.one_scale)

    @property
    def ties(self) -> np.ndarray:
        """float64: the places midway between two levels, in output steps."""
        return np.arange(self.lowest, self.highest) + 0.5

    def of(self, channels: np.ndarray) -> "Channels":
        """Some of the channels."""
        per_channel = {
            name: getattr(self, name)[channels] for name in ("divisor", "below", "above", "bias", "weight_scale")
        }
        return dataclasses.replace(self, **per_channel)


def reach_of(weights: np.ndarray, lowest: int, highest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`(divisor, below, above)` of a kernel for all inputs there can be.

    Args:
      weights: int8 (inputs, channels).
      lowest: the lowest centred integer of the input, that is, the integer less its zero point.
      highest: the highest. Padding adds zeros, so each term reaches from its lowest to its highest or zero.
    """
    divisor = np.gcd.reduce(np.abs(weights.astype(np.int64)), axis=0)
    positive, negative = (part(weights, 0).sum(0, dtype=np.int64) for part in (np.maximum, np.minimum))
    lowest, highest = min(lowest, 0), max(highest, 0)
    return (
        np.where(divisor == 0, NO_WEIGHTS, divisor),
        positive * lowest + negative * highest,
        positive * highest + negative * lowest,
    )
