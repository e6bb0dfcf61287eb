"""Tests of the operators that move values from place to place."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tflite_export.operators.agreement import Sample, assert_sample_exact
from tests.tflite_export.operators.drawing import images, seeds, sizes, tensors
from tflite_export.operators import (
    Concatenation,
    DepthToSpace,
    Pad,
    Reshape,
    ResizeNearestNeighbor,
    SpaceToDepth,
    StridedSlice,
    Transpose,
)
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


def transpose(operator: Transpose, kernels: str, x):
    return x.transpose(0, *operator.permutation)


@st.composite
def transposes(draw) -> Transpose:
    x = draw(tensors("x", draw(shapes)))
    permutation = tuple(draw(st.permutations(range(1, len(x.shape) + 1))))
    return Transpose((x,), moved(x, [x.shape[axis - 1] for axis in permutation]), permutation)


def strided_slice(operator: StridedSlice, kernels: str, x):
    ranges = [np.arange(*ends) for ends in zip(operator.begin, operator.end, operator.strides, strict=True)]
    return x[np.ix_(np.arange(len(x)), *ranges)]


@st.composite
def strided_slices(draw) -> StridedSlice:
    x, largest = draw(tensors("x", draw(shapes))), draw(st.sampled_from([1, 3]))
    begin = tuple(draw(st.integers(0, size - 1)) for size in x.shape)
    end = tuple(draw(st.integers(first + 1, size)) for first, size in zip(begin, x.shape, strict=True))
    strides = tuple(draw(st.integers(1, largest)) for _ in x.shape)
    shape = [len(range(*ends)) for ends in zip(begin, end, strides, strict=True)]
    return StridedSlice((x,), moved(x, shape), begin, end, strides)


def resize(operator: ResizeNearestNeighbor, kernels: str, x):
    """For integer factors the repetition of every pixel; else the kernel's float32 arithmetic."""
    for axis, (old, new) in enumerate(zip(operator.inputs[0].shape[:2], operator.output.shape[:2], strict=True), 1):
        if new % old == 0:
            x = x.repeat(new // old, axis)
        else:
            ratio = np.float32(old) / np.float32(new)
            x = x.take([min(int((np.float32(i) + np.float32(0.5)) * ratio), old - 1) for i in range(new)], axis)
    return x


@st.composite
def resizes(draw) -> ResizeNearestNeighbor:
    x = draw(tensors("x", draw(images)))
    free = st.tuples(st.integers(1, 30), st.integers(1, 30))
    factor = st.integers(1, 4).map(lambda n: (n * x.shape[0], n * x.shape[1]))
    return ResizeNearestNeighbor((x,), moved(x, (*draw(st.one_of(factor, free)), x.shape[2])))


def depth_to_space(operator: DepthToSpace, kernels: str, x):
    n, height, width, _ = x.shape
    block, channels = operator.block, operator.output.shape[-1]
    parts = x.reshape(n, height, width, block, block, channels)
    return parts.transpose(0, 1, 3, 2, 4, 5).reshape(n, height * block, width * block, channels)


@st.composite
def depths_to_space(draw) -> DepthToSpace:
    (height, width, channels), block = draw(images), draw(st.integers(2, 3))
    x = draw(tensors("x", (height, width, channels * block**2)))
    return DepthToSpace((x,), moved(x, (height * block, width * block, channels)), block)


def space_to_depth(operator: SpaceToDepth, kernels: str, x):
    n, block, (height, width, depth) = len(x), operator.block, operator.output.shape
    parts = x.reshape(n, height, block, width, block, -1)
    return parts.transpose(0, 1, 3, 2, 4, 5).reshape(n, height, width, depth)


@st.composite
def spaces_to_depth(draw) -> SpaceToDepth:
    (height, width, channels), block = draw(images), draw(st.integers(2, 3))
    x = draw(tensors("x", (height * block, width * block, channels)))
    return SpaceToDepth((x,), moved(x, (height, width, channels * block**2)), block)


SAMPLES = {
    Reshape: Sample(reshapes(), reshape),
    Pad: Sample(pads(), pad),
    Concatenation: Sample(concatenations(), concatenation),
    Transpose: Sample(transposes(), transpose),
    StridedSlice: Sample(strided_slices(), strided_slice),
    ResizeNearestNeighbor: Sample(resizes(), resize),
    DepthToSpace: Sample(depths_to_space(), depth_to_space),
    SpaceToDepth: Sample(spaces_to_depth(), space_to_depth),
}


@pytest.mark.parametrize("kind", SAMPLES)
@settings(max_examples=20)
@given(data=st.data(), seed=seeds)
def test_drawn_movements(kind, data, seed):
    assert_sample_exact(SAMPLES[kind], data, seed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SAMPLES)
@settings(max_examples=500)
@given(data=st.data(), seed=seeds)
def test_drawn_movements_at_length(kind, data, seed):
    assert_sample_exact(SAMPLES[kind], data, seed)
