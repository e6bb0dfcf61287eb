"""Tests of TRANSPOSE_CONV: every pixel adds its kernel to the output, where the strides put it."""

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tflite_export.operators import rounding
from tests.tflite_export.operators.agreement import Sample, assert_sample_exact
from tests.tflite_export.operators.drawing import images, seeds, sizes, tensors
from tests.tflite_export.operators.test_linear import linear, weights
from tflite_export.operators import TransposeConvolution, Window


def transposed(operator: TransposeConvolution, kernels: str, x):
    centred, kernel = x - operator.inputs[0].zero_point, operator.weights.astype(np.int64)
    (kh, kw), (sh, sw) = kernel.shape[:2], operator.window.strides
    (count, height, width, _), (rows, columns, channels) = x.shape, operator.output.shape
    whole = np.zeros((count, (height - 1) * sh + kh, (width - 1) * sw + kw, channels), np.int64)
    for row, column in np.ndindex(height, width):
        added = np.einsum("ni,hwio->nhwo", centred[:, row, column], kernel)
        whole[:, row * sh : row * sh + kh, column * sw : column * sw + kw] += added
    top, left = (whole.shape[1] - rows) // 2, (whole.shape[2] - columns) // 2
    total = rounding.in_int32(whole[:, top : top + rows, left : left + columns] + operator.bias)
    scales = operator.inputs[0].scale, operator.weight_scale, operator.output.scale
    if kernels == "xnnpack":
        levels = rounding.once(total, scales[0] * scales[1] / scales[2])
    else:
        read, weight, written = (np.asarray(scale, np.float64) for scale in scales)
        levels = rounding.twice(total, read * weight / written)
    return rounding.clamped(levels, operator.output, "none")


@st.composite
def transposed_convolutions(draw) -> TransposeConvolution:
    x, channels = draw(tensors("x", draw(images))), draw(sizes)
    size, strides = draw(st.tuples(st.integers(2, 4), st.integers(2, 4))), draw(st.sampled_from([(1, 1), (2, 2)]))
    padding = draw(st.sampled_from(["SAME", "VALID"]))
    lengths = zip(x.shape, strides, size, strict=False)
    shape = tuple(n * s if padding == "SAME" else (n - 1) * s + k for n, s, k in lengths)
    kernel = draw(weights(*size, x.shape[-1], channels))
    window = Window(strides, padding)
    operator = draw(linear(TransposeConvolution, x, kernel, (*shape, channels), window=window))
    return dataclasses.replace(operator, activation="none")


SAMPLES = {TransposeConvolution: Sample(transposed_convolutions(), transposed)}


@settings(max_examples=40)
@given(data=st.data(), seed=seeds)
def test_drawn_operators(data, seed):
    assert_sample_exact(SAMPLES[TransposeConvolution], data, seed)
