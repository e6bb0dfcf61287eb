"""Tests of the operators that move values: RESHAPE, PAD, CONCATENATION."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tflite_export.operators.agreement import Sample, assert_sample_exact
from tests.tflite_export.operators.drawing import images, seeds, sizes, tensors
from tflite_export.operators import Concatenation, Pad, Reshape
from tflite_export.plan import Tensor

shapes = st.one_of(st.tuples(sizes), st.tuples(sizes, sizes), images)


def moved(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The output: values of `x` in another shape, on its grid."""
    return dataclasses.replace(x, name="y", shape=tuple(shape))


def reshape(operator: Reshape, kernels: str, x):
    return x.reshape(-1, *operator.output.shape)


@st.composite
def reshapes(draw) -> Reshape:
    x = draw(tensors("x", draw(shapes)))
    size = math.prod(x.shape)
    first = draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
    return Reshape((x,), moved(x, draw(st.sampled_from([(size,), (first, size // first), (1, first, size // first)]))))


def pad(operator: Pad, kernels: str, x):
    return np.pad(x, [(0, 0), *operator.paddings, (0, 0)], constant_values=operator.inputs[0].zero_point)


@st.composite
def pads(draw) -> Pad:
    x = draw(tensors("x", draw(images)))
    amounts = st.tuples(st.integers(0, 3), st.integers(0, 3))
    height, width = draw(st.tuples(amounts, amounts))
    shape = x.shape[0] + sum(height), x.shape[1] + sum(width), x.shape[2]
    return Pad((x,), moved(x, shape), (height, width))


def concatenation(operator: Concatenation, kernels: str, *values):
    return np.concatenate(values, operator.axis)


@st.composite
def concatenations(draw) -> Concatenation:
    """From two tensors on, past the five that XNNPACK takes; one of them may come twice."""
    first = draw(tensors("x_0", draw(shapes)))
    axis, others = draw(st.integers(0, len(first.shape) - 1)), draw(st.lists(sizes, min_size=1, max_size=6))

    def resized(length: int) -> tuple[int, ...]:
        return (*first.shape[:axis], length, *first.shape[axis + 1 :])

    inputs = [first, *(moved(first, resized(length)) for length in others)]
    if draw(st.booleans()):
        inputs[-1] = first
    inputs = [first if x is first else dataclasses.replace(x, name=f"x_{i}") for i, x in enumerate(inputs)]
    return Concatenation(tuple(inputs), moved(first, resized(sum(x.shape[axis] for x in inputs))), axis + 1)


SAMPLES = {
    Reshape: Sample(reshapes(), reshape),
    Pad: Sample(pads(), pad),
    Concatenation: Sample(concatenations(), concatenation),
}


@pytest.mark.parametrize("kind", SAMPLES)
@given(data=st.data(), seed=seeds)
def test_drawn_movements(kind, data, seed):
    assert_sample_exact(SAMPLES[kind], data, seed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SAMPLES)
@settings(max_examples=500)
@given(data=st.data(), seed=seeds)
def test_drawn_movements_at_length(kind, data, seed):
    assert_sample_exact(SAMPLES[kind], data, seed)
