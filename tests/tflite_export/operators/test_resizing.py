"""Tests of RESIZE_BILINEAR, by the factors at which kernels agree but for ties."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tflite_export.operators.agreement import Sample, assert_sample_exact
from tests.tflite_export.operators.drawing import images, seeds, tensors
from tests.tflite_export.operators.rounding import away_from_zero
from tflite_export.operators import ResizeBilinear


def weights(size: int, factor: int) -> np.ndarray:
    """(size * factor, size): each output pixel's shares of the input pixels, in units of 1 / (2 factor)."""
    found = np.zeros((size * factor, size), np.int64)
    for i in range(size * factor):
        position = np.clip(2 * i + 1 - factor, 0, 2 * factor * (size - 1))  # of its centre
        first, share = divmod(position, 2 * factor)
        found[i, first] = 2 * factor - share
        if share:
            found[i, first + 1] = share
    return found


def resize(operator: ResizeBilinear, kernels: str, x):
    sizes, new = operator.inputs[0].shape[:2], operator.output.shape[:2]
    factors = [n // old for n, old in zip(new, sizes, strict=True)]
    rows, columns = (weights(size, factor) for size, factor in zip(sizes, factors, strict=True))
    total = np.einsum("iy,nyxc,jx->nijc", rows, x, columns)
    whole = 4 * factors[0] * factors[1]
    return (2 * total + whole) // (2 * whole) if kernels == "xnnpack" else away_from_zero(total / whole)


@st.composite
def resizes(draw) -> ResizeBilinear:
    x = draw(tensors("x", draw(images)))
    height, width = (size * draw(st.sampled_from([1, 2, 4, 8])) for size in x.shape[:2])
    return ResizeBilinear((x,), dataclasses.replace(x, name="y", shape=(height, width, x.shape[2])))


SAMPLES = {ResizeBilinear: Sample(resizes(), resize)}


@settings(max_examples=20)
@given(data=st.data(), seed=seeds)
def test_drawn_enlargements(data, seed):
    assert_sample_exact(SAMPLES[ResizeBilinear], data, seed)


@pytest.mark.slow
@settings(max_examples=500)
@given(data=st.data(), seed=seeds)
def test_drawn_enlargements_at_length(data, seed):
    assert_sample_exact(SAMPLES[ResizeBilinear], data, seed)
