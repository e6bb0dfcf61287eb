"""Every judge computes a small file with two inputs as NumPy does, by the rounding that the judge is known for."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from benchmarks import judges

IMAGES = 5
ZERO_POINT, CONV_ZERO_POINT = 128, 7
INPUT_SCALE, OUTPUT_SCALE = np.float32(0.5), np.float32(1)
WEIGHT_SCALES = np.float32([1 / 16, 0.013, 0.007, 0.0211])  # the first makes ties: a multiplier of 1/32
TWICE = ["reference", "tensorflow_reference", "tflm", "tosa"]
TWICE_UPWARD = ["builtin", "tflite_runtime"]
OUTPUTS = ["flat", "conv", "quantized", "joined", "unsigned", "padded", "pooled"]


def split_multiplier(multiplier):
    """A float64 multiplier as an integer of 31 bits, and the exponent of its power of two."""
    fraction, exponent = np.frexp(multiplier)
    return np.int64(np.floor(fraction * 2.0**31 + 0.5)), exponent


def round_once(sums):
    """float32 product, ties to even."""
    return np.rint(sums.astype(np.float32) * (INPUT_SCALE * WEIGHT_SCALES / OUTPUT_SCALE)).astype(np.int64)


def round_twice(sums, half_up=False):
    """A high product of 32 bits, rounded; a shift, rounded, ties away from zero or upwards."""
    multipliers = np.float64(INPUT_SCALE) * np.float64(WEIGHT_SCALES) / np.float64(OUTPUT_SCALE)
    integers, exponents = split_multiplier(multipliers)
    assert (exponents <= 0).all()
    high = (sums * integers + (1 << 30)) >> 31
    half = (1 << -exponents) >> 1
    return (high + half - ((high < 0) & (half > 0) & (not half_up))) >> -exponents


def convolve(padded, kernel, bias):
    windows = np.lib.stride_tricks.sliding_window_view(padded.astype(np.int64), (3, 3), axis=(1, 2))
    return np.einsum("nhwcij,oijc->nhwo", windows, kernel.astype(np.int64)) + bias


def compute(requantize, first, second, kernel, bias):
    """All results by their names; `requantize` is from sums to integers without zero point."""
    quantized = (first.astype(np.int64) - ZERO_POINT).astype(np.int8)
    padded = np.pad(quantized, ((0, 0), (1, 1), (1, 1), (0, 0)))
    conv = np.clip(requantize(convolve(padded, kernel, bias)) + CONV_ZERO_POINT, -128, 127).astype(np.int8)
    pooled = conv.reshape(-1, 3, 2, 3, 2, 4).max((2, 4))
    joined = np.concatenate([second, pooled], -1)
    return {
        "unsigned": first.reshape(-1, 18, 6),
        "quantized": quantized,
        "padded": padded,
        "conv": conv,
        "pooled": pooled,
        "joined": joined,
        "flat": joined.reshape(-1, 6),
    }


@pytest.fixture
def arrays():
    """Two inputs, a kernel and biases."""
    rng = np.random.default_rng(0)
    largest = np.array([8, 90, 120, 60]).reshape(4, 1, 1, 1)
    kernel = rng.integers(-largest, largest + 1, (4, 3, 3, 3)).astype(np.int8)
    first = rng.integers(0, 256, (IMAGES, 6, 6, 3)).astype(np.uint8)
    second = rng.integers(-128, 128, (IMAGES, 3, 3, 2)).astype(np.int8)
    return first, second, kernel, rng.integers(-999, 1000, 4).astype(np.int32)


@pytest.fixture
def content(file, arrays):
    """The file: its second input comes first, its outputs are in another order than they are computed in."""
    _, _, kernel, bias = arrays
    stream = {"scale": OUTPUT_SCALE, "zero_point": CONV_ZERO_POINT}
    file.add_tensor("first", (1, 6, 6, 3), INPUT_SCALE, ZERO_POINT, schema.TensorType.UINT8)
    file.add_tensor("unsigned", (1, 18, 6), INPUT_SCALE, ZERO_POINT, schema.TensorType.UINT8)
    file.add_tensor("second", (1, 3, 3, 2), **stream)
    file.add_constant("pads", np.int32([[0, 0], [1, 1], [1, 1], [0, 0]]))
    file.add_constant("kernel", kernel, WEIGHT_SCALES)
    file.add_constant("bias", bias, INPUT_SCALE * WEIGHT_SCALES)
    file.add_constant("shape", np.int32([9, 6]))
    file.add_tensor("quantized", (1, 6, 6, 3), INPUT_SCALE)
    file.add_tensor("padded", (1, 8, 8, 3), INPUT_SCALE)
    file.add_tensor("conv", (1, 6, 6, 4), **stream)
    file.add_tensor("pooled", (1, 3, 3, 4), **stream)
    file.add_tensor("joined", (1, 3, 3, 6), **stream)
    file.add_tensor("flat", (9, 6), **stream)
    valid = schema.Padding.VALID
    file.add_operator("RESHAPE", ["first"], "unsigned", newShape=[1, 18, 6])
    file.add_operator("QUANTIZE", ["first"], "quantized")
    file.add_operator("PAD", ["quantized", "pads"], "padded")
    dilation = {"dilationHFactor": 1, "dilationWFactor": 1}
    file.add_operator(
        "CONV_2D", ["padded", "kernel", "bias"], "conv", 3, strideH=1, strideW=1, padding=valid, **dilation
    )
    window = {"filterHeight": 2, "filterWidth": 2, "strideH": 2, "strideW": 2}
    file.add_operator("MAX_POOL_2D", ["conv"], "pooled", 2, padding=valid, **window)
    file.add_operator("CONCATENATION", ["second", "pooled"], "joined", 2, axis=3)
    file.add_operator("RESHAPE", ["joined", "shape"], "flat", newShape=[9, 6])
    return file.content(["second", "first"], OUTPUTS)


def requantize_as(judge):
    if judge in TWICE:
        return round_twice
    return (lambda sums: round_twice(sums, half_up=True)) if judge in TWICE_UPWARD else round_once


def test_the_roundings_differ_on_the_test_file(arrays):
    results = [compute(requantize_as(judge), *arrays)["conv"] for judge in ("default", "builtin", "reference")]
    assert all((results[at] != results[at - 1]).sum() > 5 for at in range(3))
    assert all(np.abs(result.astype(int)).max() < 128 or (result == 127).mean() < 0.2 for result in results)


def test_every_integer_is_as_numpy_computes_it(judge, content, arrays):
    first, second, *_ = arrays
    outputs = judges.run(judge, content, [second, first])
    expected = compute(requantize_as(judge), *arrays)
    assert len(outputs) == len(OUTPUTS)
    for name, found in zip(OUTPUTS, outputs, strict=True):
        assert found.dtype == expected[name].dtype
        np.testing.assert_array_equal(found, expected[name], name)
