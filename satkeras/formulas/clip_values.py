"""Where to clip a tensor, from its values."""

import numpy as np


def best_clip(values: np.ndarray, levels: tuple[int, int]) -> float:
    """The clip value with the smallest mean squared error of `values` on a grid of `levels` that ends there.

    Args:
      values: float32, any shape; all are looked at.
      levels: `(qmin, qmax)`; the grid's steps are `clip / qmax` wide.

    Returns:
      A clip value between a hundredth of and the whole largest value on the grid's side of zero; 0.0 if there is none.
      At 8 bits the largest value: steps are fine enough, and what the tail says counts in the network's answers.
    """
    flat = np.asarray(values, np.float32).ravel()
    flat = np.abs(flat) if levels[0] < 0 else np.maximum(flat, 0)
    largest = float(flat.max())
    if levels[1] - levels[0] >= 254:
        return largest
    clips = largest * np.geomspace(0.01, 1, 120)

    def error(clip):
        levels_per_unit = levels[1] / clip
        integers = np.minimum(np.rint(flat * levels_per_unit), levels[1])
        return np.square(integers / levels_per_unit - flat).sum()

    return float(min(clips[::-1], key=error)) if largest > 0 else 0.0
