"""Where to clip a tensor, from its values."""

import numpy as np


def best_clip(values: np.ndarray, levels: tuple[int, int]) -> float:
    """The clip value with the smallest mean squared error of `values` on a grid of `levels` that ends there.

    Args:
      values: float32, any shape; of more than 2^18 a regular sample is looked at.
      levels: `(qmin, qmax)`; the grid's steps are `clip / qmax` wide.

    Returns:
      A clip value between a hundredth of and the whole largest value on the grid's side of zero; 0.0 if there is none.
    """
    flat = np.asarray(values, np.float32).ravel()
    flat = np.abs(flat) if levels[0] < 0 else np.maximum(flat, 0)
    largest = float(flat.max())
    sample = flat[:: max(1, flat.size >> 18)]
    clips = largest * np.geomspace(0.01, 1, 120)

    def error(clip):
        levels_per_unit = levels[1] / clip
        integers = np.minimum(np.rint(sample * levels_per_unit), levels[1])
        return np.square(integers / levels_per_unit - sample).sum()

    return float(min(clips[::-1], key=error)) if largest > 0 else 0.0
