"""Clip values from data."""

import numpy as np
import pytest

from satkeras.formulas.clip_values import best_clip


@pytest.mark.parametrize(
    ("qmin", "qmax"), [(0, 3), (0, 15), (0, 255), (-1, 1), (-7, 7), (-128, 127)], ids=lambda level: str(level)
)
def test_the_best_clip_has_the_smallest_error(qmin, qmax):
    values = np.random.default_rng(0).normal(0, 2, 5000).astype(np.float32)
    kept = values if qmin else np.maximum(values, 0)

    def error(clip):
        return np.square(np.clip(np.rint(kept / clip * qmax), qmin, qmax) * clip / qmax - kept).mean()

    found = best_clip(values, (qmin, qmax))
    # The candidates lie 4 % apart.
    assert error(found) <= 1.1 * min(error(clip) for clip in np.linspace(0.1, 9, 400))


def test_the_best_clip_of_nothing():
    assert best_clip(np.zeros(4, np.float32), (0, 15)) == 0.0
    assert best_clip(-np.ones(4, np.float32), (0, 15)) == 0.0
