"""Bad sums, on which runtimes part, and the biases that no sum of a channel can reach one from.

Theorem. Write a multiplier m as f 2^e, 1/2 <= f < 1, and let T = k + 1/2 be the ties between the levels that the clamp
lets through. The rules of `rounding_rules.py` part only at integers next to T / m: kernels that round twice first
round m s in units of 2^e, and can then mistake a number within half a unit of a tie for the tie itself; float32 errs by
a few steps of the multiplier. All bad sums therefore lie among some integers around each T / m. A channel whose weights
are multiples of g makes the sums b + g n only: whatever the input, all rules agree on it exactly if no bad sum within
its reach is congruent to its bias b modulo g; and if there is none within its reach at all, as a bias can have it where
a channel's weights move its result by less than a level.
"""

import numpy as np

from tflite_export.portability.channels import Channels
from tflite_export.portability.rounding_rules import disagree

# The integers around T / m that are asked, from the one below it. float32 errs by 2^-23 of a sum, one or two integers
# for sums of 2^24.
NEXT_TO_A_TIE = np.arange(-2, 4)
# By how much, relatively, float32 errs about a sum and its multiplier.
_FLOAT32_ERROR = 2.0**-21
# Of sums and biases: no multiplier then shifts one out of int32.
LARGEST_SUM = 2**30


def bad_sums(channels: Channels, weight_scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The integers next to ties, and which of them are bad.

    Args:
      channels: of an operator.
      weight_scale: float32 (channels, candidates), the scales that its weights could have.

    Returns:
      int64 and bool (channels, candidates, integers).
    """
    multiplier = channels.scales_of(weight_scale).exact[..., None, None]
    largest = LARGEST_SUM / np.maximum(multiplier, 1)
    middle = np.clip(np.floor(channels.ties[:, None] / multiplier), -largest, largest)
    sums = (middle + NEXT_TO_A_TIE).astype(np.int64)
    bad = disagree(sums, channels.scales_of(weight_scale[..., None, None]), channels.lowest, channels.highest)
    shape = (*weight_scale.shape, -1)
    return sums.reshape(shape), bad.reshape(shape)


def nearest_biases(channels: Channels, weight_scale: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The portable bias that is nearest to the one wanted.

    Args:
      channels: of an operator.
      weight_scale: float32 (channels, candidates).
      wanted: float64 (channels, candidates), the bias in steps of input scale times weight scale.

    Returns:
      int64 biases, and float64 their distances from what is wanted, infinite where there is none.
    """
    sums, bad = bad_sums(channels, weight_scale)
    divisor = channels.divisor[:, None, None]
    residues = np.arange(channels.divisor.max(initial=1))
    biases = (residues + divisor * np.rint((wanted[..., None] - residues) / divisor)).astype(np.int64)
    distance = np.abs(biases - wanted[..., None])
    distance[np.broadcast_to((residues >= divisor) | (np.abs(biases) > LARGEST_SUM), distance.shape)] = np.inf
    channel, candidate, place = np.nonzero(bad)
    found = sums[channel, candidate, place]
    residue = found % channels.divisor[channel]
    without_bias = found - biases[channel, candidate, residue]
    reached = (channels.below[channel] <= without_bias) & (without_bias <= channels.above[channel])
    distance[channel[reached], candidate[reached], residue[reached]] = np.inf
    best = distance.argmin(-1)[..., None]
    bias, moved = (np.take_along_axis(values, best, -1)[..., 0] for values in (biases, distance))
    none = np.nonzero(np.isinf(moved))
    multiplier = channels.scales_of(weight_scale).exact[none]
    bias[none], moved[none] = _between_ties(channels.of(none[0]), multiplier, wanted[none])
    return bias, moved


def _between_ties(channels: Channels, multiplier: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest biases, int64 (n,), with no tie within reach of n channels, and their distances; within a level."""
    ties = channels.ties / multiplier[:, None]
    margin = len(NEXT_TO_A_TIE) + np.abs(wanted) * _FLOAT32_ERROR
    below, above = channels.below - margin, channels.above + margin

    def within_reach(biases):
        return (biases[:, None] + below[:, None] <= ties) & (ties <= biases[:, None] + above[:, None])

    hit = within_reach(wanted)
    lowest = ties.min(-1, initial=np.inf, where=hit)
    highest = ties.max(-1, initial=-np.inf, where=hit)
    biases = np.stack([np.ceil(lowest - above) - 1, np.floor(highest - below) + 1])
    distance = np.abs(biases - wanted)
    refused = ~(np.abs(biases) <= LARGEST_SUM) | (distance * multiplier > 1)
    refused |= [within_reach(row).any(-1) for row in biases]
    distance[refused] = np.inf
    best = distance.argmin(0)[None]
    biases = np.where(refused, 0, biases).astype(np.int64)
    return np.take_along_axis(biases, best, 0)[0], np.take_along_axis(distance, best, 0)[0]
