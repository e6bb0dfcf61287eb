"""The proof that runtimes agree on a channel: every sum that it can reach, under every rule."""

from collections.abc import Iterator

import numpy as np

from tflite_export.portability.channels import Channels
from tflite_export.portability.rounding_rules import disagree

# Beyond the clamp's ends, in levels, sums are enumerated too; farther away every rule gives the end itself.
_BEYOND = 1.5
# Of a channel's sums at once: what fits a cache.
_AT_ONCE = 1 << 15


def bad_reachable_sums(channels: Channels) -> tuple[np.ndarray, np.ndarray]:
    """How many sums were enumerated for each channel, and on how many of them the rules part; int64 (channels,)."""
    first, count = _enumeration(channels)
    bad = np.zeros(len(count), np.int64)
    for rows in _alike(count):
        scales = channels.scales_of(channels.weight_scale[rows, None])
        for start in range(0, int(count[rows].max()), _AT_ONCE):
            places = np.arange(start, min(start + _AT_ONCE, int(count[rows].max())), dtype=np.int64)
            sums = first[rows, None] + channels.divisor[rows, None] * places
            parted = disagree(sums, scales, channels.lowest, channels.highest)
            bad[rows] += (parted & (places < count[rows, None])).sum(-1)
    return count, bad


def _alike(count: np.ndarray) -> Iterator[np.ndarray]:
    """Channels with about equally many sums, together as many as are asked at once, or one with more."""
    order = np.argsort(count, kind="stable")
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end + 1 - start) * count[order[end]] > _AT_ONCE:
            yield order[start:end]
            start = end


def _enumeration(channels: Channels) -> tuple[np.ndarray, np.ndarray]:
    """The first sum of each channel that is to be asked, and how many."""
    multiplier = channels.scales.exact
    with np.errstate(divide="ignore"):
        ends = np.stack([channels.lowest - _BEYOND + 0 * multiplier, channels.highest + _BEYOND + 0 * multiplier])
        low, high = np.clip(ends / multiplier, -(2.0**40), 2.0**40)
    below = np.ceil((np.maximum(low, channels.bias + channels.below) - channels.bias) / channels.divisor)
    above = np.floor((np.minimum(high, channels.bias + channels.above) - channels.bias) / channels.divisor)
    count = np.maximum(above - below + 1, 0).astype(np.int64)
    return (channels.bias + channels.divisor * below).astype(np.int64), count
