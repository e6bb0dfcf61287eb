"""Portable numbers for a weighted sum: a bias among its residues, and a scale of the weights next to the given one.

Theorem. If the multiplier is m = p / (g q), p and q integers, the bad sums of all ties fall into few residues modulo g:
the sums of a channel lie f g / p apart, in the units in which rounding twice errs by half a unit at most. Where p < f g
there is room between two of them, and a portable bias; with ties of one sign, as behind a ReLU, from p < 2 f g on. With
fewer ties than g the scale may stay as it is: they cannot take up all residues.
With g = 1 and ties of one sign m = (1 + 1e-6) / q, q even, just passes every tie, which then lies on a sum.

Which of the scales that come into question are portable is never concluded from this: the rules are asked, with the
float32 numbers that the file will hold.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from tflite_export.portability.bad_sums import NEXT_TO_A_TIE, nearest_biases
from tflite_export.portability.channels import Channels

# How many scales are asked at once, the nearest first.
_AT_ONCE = (1, 6, 24, 96, 400)
# How many integers at once: a bound of memory.
_INTEGERS = 2_000_000
# Of q next to p / (g m), to both sides; more of them where g is small, since with f near 1/2 hardly any serves.
_NEAREST = np.arange(-1, 3)
_NEAR = np.arange(-20, 21)
# By how much a multiplier passes a tie, relatively: some float32 steps.
_PASSES = np.array([5e-7, -5e-7, 1e-6, -1e-6, 2e-6, -2e-6, 4e-6, -4e-6])
# A change of the scale counts by what it moves at a quarter of the output's range.
_WHERE_A_SCALE_COUNTS = 1 / 4
# In output levels: a bias that moves no farther spares the scale.
_SMALL_MOVE_OF_A_BIAS = 0.05
# In output levels, beyond which a channel whose weights have an odd divisor had better have even ones.
_LARGEST_COST_OF_ODD_WEIGHTS = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """What a search found.

    Attributes:
      weight_scale: float32 (channels,).
      bias: int64 (channels,).
      portable: bool (channels,); the numbers of the others are the given ones.
      moved: float64 (channels,), the relative changes of the scales.
      bias_moved: float64 (channels,), the changes of the biases, in output levels, beyond what a scale's change asks.
      needs_even_weights: bool (channels,), those whose weights have an odd divisor, and for which even ones would serve
        better.
    """

    weight_scale: np.ndarray
    bias: np.ndarray
    portable: np.ndarray
    moved: np.ndarray
    bias_moved: np.ndarray
    needs_even_weights: np.ndarray

    @property
    def changes(self) -> bool:
        """Whether a channel's numbers are others than the given ones."""
        return bool(self.moved.any() or self.bias_moved.any())


def portable_choice(channels: Channels) -> Choice:
    """For each channel the portable scale and bias that move its results least.

    With one scale for all channels the scale is one that suits all, or none does.
    """
    if channels.one_scale:
        return _shared(channels)
    count = len(channels.bias)
    best = _Best(channels)
    targets = _candidates(channels)
    start = 0
    for size in _AT_ONCE:
        if start >= targets.shape[1]:
            break
        first_cost = _scale_cost(channels, targets[:, start], np.arange(count))
        first_cost = np.maximum(first_cost, _SMALL_MOVE_OF_A_BIAS if start == 1 else 0)
        active = np.flatnonzero(~(best.cost <= first_cost))  # those without a candidate left cost NaN
        active = active[np.isfinite(targets[active, start])]
        for part in _parts(channels, active, size):
            best.ask(part, targets[part, start : start + size])
        start += size
    return best.choice()


def _shared(channels: Channels) -> Choice:
    """The same with one scale: channels of one divisor, that of all weights together, and the worst channel counts."""
    everything = np.arange(len(channels.bias))
    weighted = channels.divisor[channels.below < channels.above]
    common = np.gcd.reduce(weighted, keepdims=True) if len(weighted) else channels.divisor[:1]
    first = dataclasses.replace(channels.of(everything[:1]), divisor=common)
    targets = _candidates(first)
    targets = targets[:, np.isfinite(targets[0])]
    best = _Best(channels)
    for start, size in zip(np.cumsum((0, *_AT_ONCE)), _AT_ONCE, strict=False):
        if start >= targets.shape[1] or best.cost.max() <= _scale_cost(channels, targets[:, start], everything[:1])[0]:
            break
        for target in targets[0, start : start + size]:
            trial = _Best(channels)
            for part in _parts(channels, everything, 1):
                trial.ask(part, np.full((len(part), 1), target))
            if trial.cost.max() < best.cost.max():
                best = trial
    worst = best.cost.max()
    best.cost[:] = worst  # none is portable unless all are, and what one needs concerns all
    return best.choice()


class _Best:
    """The best that was found so far for each channel."""

    def __init__(self, channels: Channels):
        self.channels = channels
        self.given = channels.scales.exact
        self.cost = np.full(len(channels.bias), np.inf)
        self.weight_scale = np.array(channels.weight_scale)
        self.bias = np.array(channels.bias)
        self.bias_moved = np.zeros(len(channels.bias))

    def ask(self, part: np.ndarray, targets: np.ndarray) -> None:
        """Asks for some channels whether multipliers (channels, candidates), NaN for none, have a portable bias."""
        channels, given = self.channels.of(part), self.given[part, None]
        known = np.isfinite(targets)
        realized = (
            np.where(known, targets, given) * np.float64(channels.output_scale) / np.float64(channels.input_scale)
        ).astype(np.float32)
        realized = np.where(targets == given, channels.weight_scale[:, None], realized)
        multiplier = channels.scales_of(realized).exact
        wanted = channels.bias[:, None] * (given / multiplier)
        biases, distance = nearest_biases(channels, realized, wanted)
        levels = distance * multiplier
        cost = np.hypot(_scale_cost(self.channels, multiplier, part), levels)
        cost[~known] = np.inf
        best = cost.argmin(-1)
        rows = np.arange(len(part))
        better = cost[rows, best] < self.cost[part]
        rows, best, part = rows[better], best[better], part[better]
        self.cost[part] = cost[rows, best]
        self.weight_scale[part], self.bias[part] = realized[rows, best], biases[rows, best]
        self.bias_moved[part] = levels[rows, best]

    def choice(self) -> Choice:
        portable = np.isfinite(self.cost)
        moved = self.channels.scales_of(self.weight_scale).exact / self.given - 1
        even = (self.channels.divisor % 2 == 1) & ~(self.cost <= _LARGEST_COST_OF_ODD_WEIGHTS)
        return Choice(self.weight_scale, self.bias, portable, moved, self.bias_moved, even)


def _scale_cost(channels: Channels, multiplier: np.ndarray, part: np.ndarray) -> np.ndarray:
    """In output levels."""
    given = channels.scales.exact[part]
    given = given.reshape(-1, *[1] * (multiplier.ndim - 1))
    return np.abs(multiplier / given - 1) * (channels.highest - channels.lowest) * _WHERE_A_SCALE_COUNTS


def _parts(channels: Channels, active: np.ndarray, candidates: int) -> Iterator[np.ndarray]:
    """Channels in parts that fit the memory."""
    size = max(_INTEGERS // (candidates * max(len(channels.ties), 1) * len(NEXT_TO_A_TIE)), 1)
    yield from (active[start : start + size] for start in range(0, len(active), size))


def _candidates(channels: Channels) -> np.ndarray:
    """Multipliers that come into question, float64 (channels, candidates), the nearest first, NaN where there is none.

    The first is the given one.
    """
    given = channels.scales.exact
    one_sign = channels.lowest >= 0 or channels.highest <= 0
    found: dict[int, np.ndarray] = {}
    for divisor in np.unique(channels.divisor):
        rows = np.flatnonzero(channels.divisor == divisor)
        found[int(divisor)] = _near(given[rows], int(divisor), one_sign)
    table = np.full((len(given), 1 + max(part.shape[1] for part in found.values())), np.nan)
    table[:, 0] = given
    for divisor, part in found.items():
        rows = np.flatnonzero(channels.divisor == divisor)
        table[rows, 1 : 1 + part.shape[1]] = part
    return table[:, : sum(_AT_ONCE)]


def _near(given: np.ndarray, divisor: int, one_sign: bool) -> np.ndarray:
    """P / (g q) next to the given multipliers, sorted by distance."""
    if divisor == 1 and not one_sign:
        return np.zeros((len(given), 0))
    if divisor == 1:
        q = np.maximum(2 * np.rint(0.5 / given)[:, None] + 2 * _NEAR, 2)
        targets = (1 / q)[..., None] * (1 + _PASSES)
    else:
        p = np.arange(1.0, 2 * divisor)
        q = np.rint(p / (divisor * given[:, None]))[..., None] + (_NEAR if divisor <= 4 else _NEAREST)
        q = np.where(q >= 1, q, np.nan)
        targets = p[:, None] / (divisor * q)
        room = np.frexp(targets)[0] * divisor * (2 if one_sign else 1)
        targets = np.where(p[:, None] < room, targets, np.nan)
    targets = targets.reshape(len(given), -1)
    order = np.argsort(np.abs(targets / given[:, None] - 1), axis=-1)  # NaN comes last
    return np.take_along_axis(targets, order, -1)
