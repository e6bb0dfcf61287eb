"""Tests of the pools: MAX_POOL_2D, AVERAGE_POOL_2D."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tflite_export.operators.agreement import Sample, assert_exact, assert_sample_exact, random_values
from tests.tflite_export.operators.drawing import images, patches, seeds, tensor, tensors, windowed_shape, windows
from tflite_export.operators import AveragePool, MaxPool, Window

OUTSIDE = 1000  # no int8 value: what a window holds beyond the image's border


def max_pool(operator: MaxPool, kernels: str, x):
    return patches(x, operator.pool, operator.window, -OUTSIDE).max((-2, -1))


def average_pool(operator: AveragePool, kernels: str, x):
    """The kernels of LiteRT and TFLite Micro: raw int8 values, half of the count added before C++'s division."""
    seen = patches(x, operator.pool, operator.window, OUTSIDE)
    inside = seen != OUTSIDE
    total, count = np.where(inside, seen, 0).sum((-2, -1)), inside.sum((-2, -1))
    magnitude = (np.abs(total) + count // 2) // count
    return np.where(total > 0, magnitude, -magnitude)


@st.composite
def pools(draw, kind):
    x = draw(tensors("x", draw(images)))
    pool = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    window = draw(windows(x, pool, dilated=False))
    y = dataclasses.replace(x, name="y", shape=windowed_shape(x, pool, window, x.shape[-1]))
    return kind((x,), y, pool, window)


SAMPLES = {
    MaxPool: Sample(pools(MaxPool), max_pool),
    AveragePool: Sample(pools(AveragePool), average_pool),
}


@pytest.mark.parametrize("kind", SAMPLES)
@settings(max_examples=60)
@given(data=st.data(), seed=seeds)
def test_drawn_pools(kind, data, seed):
    assert_sample_exact(SAMPLES[kind], data, seed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SAMPLES)
@settings(max_examples=1000)
@given(data=st.data(), seed=seeds)
def test_drawn_pools_at_length(kind, data, seed):
    assert_sample_exact(SAMPLES[kind], data, seed)


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (8, 8), (3, 50), (64, 64)])
@pytest.mark.parametrize("kind", SAMPLES)
def test_a_window_of_the_whole_image(kind, size):
    x = tensor("x", (*size, 3), 0.5, 9)
    operator = kind((x,), dataclasses.replace(x, name="y", shape=(1, 1, 3)), size, Window())
    values = random_values(operator, 0)
    values.append(np.stack([np.full(x.shape, end, np.int8) for end in (-128, 127)]))
    assert_exact(operator, SAMPLES[kind].definition, [np.concatenate(values)])


def test_every_sum_of_two_values():
    """Ties go away from int8's zero, wherever the zero point lies."""
    x = tensor("x", (256, 2, 1), 1, -100)
    operator = AveragePool((x,), dataclasses.replace(x, name="y", shape=(256, 1, 1)), (1, 2), Window())
    values = np.stack([np.arange(-128, 128), np.full(256, 1)], axis=-1).astype(np.int8)[None, ..., None]
    for result in assert_exact(operator, average_pool, [values]).values():
        middle = (np.arange(-128, 128) + 1) / 2
        np.testing.assert_array_equal(result.ravel(), np.sign(middle) * np.floor(np.abs(middle) + 0.5))
