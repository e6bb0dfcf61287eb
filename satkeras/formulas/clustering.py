"""Thresholds between levels from k-means, as Quantization Networks sets them (CVPR 2019, section 3.3)."""

from collections.abc import Sequence

import numpy as np

# More values do not move the centres by anything that matters; every rank is kept, so the tails are.
LARGEST_SAMPLE = 20_000


def input_scale(values, levels: Sequence[int]) -> float:
    """beta: the factor that spreads values over five fourths of the levels; zeros count as a largest value of 1."""
    largest = float(np.abs(values).max(initial=0.0))
    return 1.25 * max(abs(level) for level in levels) / (largest or 1.0)


def weight_thresholds(scaled, levels: Sequence[int], zero_edge: float | None) -> np.ndarray:
    """Thresholds of weights, already times beta: midway between k-means' centres.

    Args:
      scaled: real values, any shape.
      levels: integers in order, symmetric around zero; one threshold (levels -1, 1) lies at zero.
      zero_edge: where the two thresholds around zero lie instead, at plus and minus this; None: midway, too.
    """
    if len(levels) == 2:
        return np.zeros(1, np.float32)
    thresholds = _midways(scaled, levels)
    if zero_edge is not None:
        middle = len(thresholds) // 2
        thresholds[middle - 1 : middle + 1] = -zero_edge, zero_edge
    return np.sort(thresholds).astype(np.float32)


def activation_thresholds(scaled, levels: Sequence[int]) -> np.ndarray:
    """Thresholds of an activation, already times beta: midway between k-means' centres.

    Args:
      scaled: real values of the tensor for some images, any shape.
      levels: integers in order.
    """
    return _midways(scaled, levels).astype(np.float32)


def _midways(scaled, levels: Sequence[int]) -> np.ndarray:
    from sklearn.cluster import KMeans  # half a second, of use to scheme "qn" alone

    values = np.sort(np.asarray(scaled, np.float64), axis=None)
    if not np.isfinite(values).all():
        raise ValueError("its values hold NaN or infinity")
    if len(values) > LARGEST_SAMPLE:
        values = values[np.linspace(0, len(values) - 1, LARGEST_SAMPLE).astype(np.int64)]
    distinct = np.unique(values)
    if len(distinct) < len(levels):
        # Nothing to cluster: midway between the levels themselves.
        return np.convolve(levels, [0.5, 0.5], "valid")
    start = distinct[np.linspace(0, len(distinct) - 1, 2 * len(levels) + 1).astype(np.int64)[1::2]]
    centres = KMeans(len(levels), init=start[:, None], n_init=1).fit(values[:, None]).cluster_centers_
    return np.convolve(np.sort(centres[:, 0]), [0.5, 0.5], "valid")
