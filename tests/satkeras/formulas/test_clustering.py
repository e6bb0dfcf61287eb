"""Thresholds from k-means, and the scale of the input."""

import numpy as np
import pytest

from satkeras.formulas import clustering

BLOBS = np.array([-3.0, -2.1, -1.0, 0.0, 1.2, 2.0, 3.1])


def blobs(count=300):
    rng = np.random.default_rng(0)
    return np.concatenate([centre + rng.uniform(-0.1, 0.1, count) for centre in BLOBS])


def test_input_scale_spreads_the_largest_value_over_five_fourths_of_the_levels():
    assert clustering.input_scale([[-0.5, 0.2]], (-4, -2, -1, 0, 1, 2, 4)) == pytest.approx(5 / 4 * 4 / 0.5)
    assert clustering.input_scale(np.zeros(3), (-1, 0, 1)) == 1.25


def test_activation_thresholds_are_midway_between_the_clusters():
    found = clustering.activation_thresholds(np.random.default_rng(1).permutation(blobs()), range(7))
    np.testing.assert_allclose(found, (BLOBS[1:] + BLOBS[:-1]) / 2, atol=0.02)
    assert found.dtype == np.float32


def test_weight_thresholds_next_to_zero_are_set():
    found = clustering.weight_thresholds(blobs(), (-4, -2, -1, 0, 1, 2, 4), zero_edge=0.05)
    expected = [*(BLOBS[1:3] + BLOBS[:2]) / 2, -0.05, 0.05, *(BLOBS[5:] + BLOBS[4:-1]) / 2]
    np.testing.assert_allclose(found, expected, atol=0.02)
    np.testing.assert_allclose(clustering.weight_thresholds(blobs(), (-1, 0, 1), zero_edge=0.05), [-0.05, 0.05])
    np.testing.assert_array_equal(clustering.weight_thresholds(blobs(), (-1, 1), zero_edge=0.05), [0])


def test_weight_thresholds_next_to_zero_are_those_of_k_means_where_nothing_else_is_said():
    found = clustering.weight_thresholds(blobs(), (-4, -2, -1, 0, 1, 2, 4), zero_edge=None)
    np.testing.assert_allclose(found, (BLOBS[1:] + BLOBS[:-1]) / 2, atol=0.02)
    values = np.random.default_rng(0).normal(size=100_000)
    # The best three-level thresholds of a normal distribution (Lloyd-Max).
    np.testing.assert_allclose(clustering.weight_thresholds(values, (-1, 0, 1), None), [-0.612, 0.612], atol=0.02)


def test_large_tensors_are_sampled_the_same_way_every_time():
    values = np.random.default_rng(0).normal(size=100_000)
    first, second = (clustering.activation_thresholds(values, range(4)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    # The best four-level thresholds of a normal distribution (Lloyd-Max).
    np.testing.assert_allclose(first, [-0.98, 0, 0.98], atol=0.03)


@pytest.mark.parametrize("values", [np.zeros(9), np.ones(1), np.array([0.0, 1.0])], ids=["zeros", "one", "two values"])
def test_tensors_with_fewer_values_than_levels(values):
    np.testing.assert_array_equal(clustering.activation_thresholds(values, range(4)), [0.5, 1.5, 2.5])
    np.testing.assert_allclose(clustering.weight_thresholds(values, range(-2, 3), 0.05), [-1.5, -0.05, 0.05, 1.5])


def test_nan_is_refused():
    with pytest.raises(ValueError, match="NaN or infinity"):
        clustering.activation_thresholds([0.0, np.nan], range(4))
