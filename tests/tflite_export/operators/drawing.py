"""Tensors, grids and windows for operators that are drawn at random."""

import math

import numpy as np
from hypothesis import strategies as st

from tflite_export.operators import Window
from tflite_export.plan import Tensor

sizes = st.integers(1, 7)
images = st.tuples(sizes, sizes, sizes)
seeds = st.integers(0, 2**32 - 1)
zero_points = st.one_of(st.sampled_from([-128, 0, 127]), st.integers(-128, 127))
# Powers of two make sums that lie exactly between two levels.
scales = st.one_of(st.integers(-9, 1).map(lambda exponent: 2.0**exponent), st.floats(2**-9, 2, width=32))


def tensor(name: str, shape: tuple[int, ...], scale, zero_point: int, ends: tuple[int, int] = (-128, 127)) -> Tensor:
    return Tensor(name, tuple(shape), np.float32(scale), zero_point, float(scale), *ends)


@st.composite
def tensors(draw, name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor on any grid of int8; half of them hold fewer than 256 levels."""
    ends = (-128, 127)
    if draw(st.booleans()):
        ends = tuple(sorted(draw(st.tuples(zero_points, zero_points))))
    return tensor(name, shape, draw(scales), draw(zero_points), ends)


@st.composite
def outputs(draw, shape: tuple[int, ...], activations=("none", "relu", "relu_n1_to_1")) -> tuple[Tensor, str]:
    """What an operator writes, and what it fuses."""
    activation = draw(st.sampled_from(activations))
    if activation == "relu_n1_to_1":
        top = draw(st.sampled_from([1, 3, 7, 15, 31, 63]))
        return tensor("y", shape, 1 / top, 0, (-top, top)), activation
    return tensor("y", shape, draw(scales), draw(zero_points)), activation


@st.composite
def windows(draw, x: Tensor, size: tuple[int, int], dilated: bool = True) -> Window:
    """A window that fits."""
    strides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilations = (1, 1)
    if dilated and strides == (1, 1):
        dilations = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    fits = all((k - 1) * d < length for k, d, length in zip(size, dilations, x.shape, strict=False))
    padding = draw(st.sampled_from(["SAME", "VALID"] if fits else ["SAME"]))
    return Window(strides, padding, dilations)


def patches(x: np.ndarray, size: tuple[int, int], window: Window, fill: int) -> np.ndarray:
    """What a kernel of `size` sees at each place: (n, height, width, channels, *size)."""
    spans = [(k - 1) * d + 1 for k, d in zip(size, window.dilations, strict=True)]
    if window.padding == "SAME":
        margins = []
        for length, span, stride in zip(x.shape[1:3], spans, window.strides, strict=True):
            missing = max((math.ceil(length / stride) - 1) * stride + span - length, 0)
            margins.append((missing // 2, missing - missing // 2))
        x = np.pad(x, [(0, 0), *margins, (0, 0)], constant_values=fill)
    views = np.lib.stride_tricks.sliding_window_view(x, spans, (1, 2))
    (sh, sw), (dh, dw) = window.strides, window.dilations
    return views[:, ::sh, ::sw, :, ::dh, ::dw]


def windowed_shape(x: Tensor, size: tuple[int, int], window: Window, channels: int) -> tuple[int, ...]:
    """The shape of an operator's output that has a window."""
    return (*patches(np.zeros((1, *x.shape[:2], 1)), size, window, 0).shape[1:3], channels)
