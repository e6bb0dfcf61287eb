"""Samples of all positions, extremes included, and moments over batches."""

import numpy as np
import pytest

from satkeras.calibration.sampling import SIZE, Moments, Sample, moments_of


def test_a_sample_is_of_every_position_and_has_the_extremes():
    rng = np.random.default_rng(0)
    # Channels of different size: a stride would see some of them alone.
    batches = [np.arange(1, 65, dtype=np.float32) * np.ones((8, 16, 16, 64), np.float32) for _ in range(6)]
    batches[3][5, 7, 7, 20] = 1000.0
    batches[4][0, 0, 0, 0] = -1000.0
    sample = Sample()
    for batch in batches:
        sample.add(batch + rng.normal(0, 0.01, batch.shape).astype(np.float32))
    values = sample.values
    assert len(values) == SIZE + 2
    assert values.max() > 999 and values.min() < -999
    counts = np.bincount(np.rint(values[np.abs(values) < 100]).astype(int), minlength=65)[1:]
    assert counts.min() > 0.7 * SIZE / 64
    assert counts.max() < 1.3 * SIZE / 64


def test_a_short_tensor_is_kept_whole():
    sample = Sample()
    sample.add(np.arange(10, dtype=np.float32))
    np.testing.assert_array_equal(np.sort(sample.values), [0, *range(10), 9])


@pytest.mark.parametrize("shape", [(37, 3), (37, 4, 4, 3)])
def test_moments_of_batches_are_those_of_the_whole(shape):
    values = np.random.default_rng(0).normal(5, 2, shape).astype(np.float32)
    moments = Moments()
    for start in range(0, 37, 8):
        moments.add(*moments_of(values[start : start + 8]))
    axes = tuple(range(values.ndim - 1))
    np.testing.assert_allclose(moments.mean, values.mean(axes, np.float64), rtol=1e-6)
    np.testing.assert_allclose(moments.variance, values.var(axes, np.float64), rtol=1e-6)
