"""Tests of MAXIMUM and MINIMUM, of a tensor and an integer and of two tensors."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tflite_export.operators.agreement import Sample, assert_exact, assert_sample_exact
from tests.tflite_export.operators.drawing import images, seeds, sizes, tensor, tensors, zero_points
from tflite_export.operators import Maximum, MaximumOfTwo, Minimum, MinimumOfTwo

ALL_CODES = np.arange(-128, 128).astype(np.int8)[None]
shapes = st.one_of(st.tuples(sizes), images)


@st.composite
def limits(draw, kind):
    x = draw(tensors("x", draw(shapes)))
    return kind((x,), dataclasses.replace(x, name="y"), draw(zero_points))


@st.composite
def extrema_of_two(draw, kind):
    x = draw(tensors("a", draw(shapes)))
    return kind((x, dataclasses.replace(x, name="b")), dataclasses.replace(x, name="y"))


SAMPLES = {
    Maximum: Sample(limits(Maximum), lambda operator, kernels, x: np.maximum(x, operator.limit)),
    Minimum: Sample(limits(Minimum), lambda operator, kernels, x: np.minimum(x, operator.limit)),
    MaximumOfTwo: Sample(extrema_of_two(MaximumOfTwo), lambda operator, kernels, *values: np.maximum(*values)),
    MinimumOfTwo: Sample(extrema_of_two(MinimumOfTwo), lambda operator, kernels, *values: np.minimum(*values)),
}


@pytest.mark.parametrize("kind", SAMPLES)
@settings(max_examples=15)
@given(data=st.data(), seed=seeds)
def test_drawn_extrema(kind, data, seed):
    assert_sample_exact(SAMPLES[kind], data, seed)


@pytest.mark.parametrize("limit", [-128, -1, 0, 77, 127])
@pytest.mark.parametrize("kind", [Maximum, Minimum])
def test_all_values(kind, limit):
    x = tensor("x", (256,), 0.3, 5)
    assert_exact(kind((x,), dataclasses.replace(x, name="y"), limit), SAMPLES[kind].definition, [ALL_CODES])


@pytest.mark.parametrize("kind", [MaximumOfTwo, MinimumOfTwo])
def test_all_pairs(kind):
    x = tensor("a", (256, 256), 0.3, 5)
    left, right = np.meshgrid(ALL_CODES, ALL_CODES)
    operator = kind((x, dataclasses.replace(x, name="b")), dataclasses.replace(x, name="y"))
    assert_exact(operator, SAMPLES[kind].definition, [left[None], right[None]])
