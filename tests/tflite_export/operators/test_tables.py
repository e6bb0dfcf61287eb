"""Tests of functions of one tensor on a fixed output grid: SOFTMAX."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tflite_export.operators import gemmlowp
from tests.tflite_export.operators.agreement import Sample, assert_exact, assert_sample_exact, plan_of, random_values
from tests.tflite_export.operators.drawing import seeds, tensor, tensors
from tflite_export.file.writer import write_file
from tflite_export.operators import Softmax
from tflite_export.operators.fixed_point import LARGEST_SUM
from tflite_export.verification.interpreter import open_interpreter, run

# SOFTMAX.


def softmax(operator: Softmax, kernels: str, x):
    scale = operator.inputs[0].scale
    if kernels != "xnnpack":
        return gemmlowp.softmax(x, scale)
    below = x.max(-1, keepdims=True) - x
    powers = np.exp((-scale * below.astype(np.float32)).astype(np.float64)).astype(np.float32)
    total = np.zeros(powers.shape[:-1], np.float32)
    for column in np.moveaxis(powers, -1, 0):
        total = total + column
    inverse = np.float32(1) / (total * np.float32(1 / 256))
    return np.minimum(np.floor(powers * inverse[..., None] + np.float32(0.5)) - 128, 127).astype(np.int64)


def softmax_of(x) -> Softmax:
    return Softmax((x,), tensor("y", x.shape, 1 / 256, -128))


@st.composite
def softmaxes(draw) -> Softmax:
    return softmax_of(draw(tensors("x", draw(st.sampled_from([(), (3,), (2, 2)])) + (draw(st.integers(2, 200)),))))


SAMPLES = {Softmax: Sample(softmaxes(), softmax)}


@pytest.mark.parametrize("kind", SAMPLES)
@given(data=st.data(), seed=seeds)
def test_drawn_functions(kind, data, seed):
    assert_sample_exact(SAMPLES[kind], data, seed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SAMPLES)
@settings(max_examples=500)
@given(data=st.data(), seed=seeds)
def test_drawn_functions_at_length(kind, data, seed):
    assert_sample_exact(SAMPLES[kind], data, seed)


@pytest.mark.parametrize("scale", [2.0**-16, 0.001, 1 / 31, 0.0625, 0.1, 0.5, 1, 3.7, 31, 32, 100])
def test_softmax_of_all_pairs(scale):
    """Two logits: 256 differences of them decide all."""
    x = tensor("x", (512, 2), scale, 0)
    first = np.concatenate([np.full(256, 127), np.arange(-128, 128)])
    second = np.concatenate([np.arange(-128, 128), np.full(256, 127)])
    values = np.stack([first, second], -1).astype(np.int8)
    assert_exact(softmax_of(x), softmax, [values[None]])


def test_softmax_is_within_a_level_of_the_real_one():
    x = tensor("x", (10,), 0.1, 5)
    operator = softmax_of(x)
    (values,) = random_values(operator, 2)
    powers = np.exp(0.1 * values.astype(float))
    for levels in assert_exact(operator, softmax, [values]).values():
        assert np.abs((levels + 128) / 256 - powers / powers.sum(-1, keepdims=True)).max() <= 1 / 256


@pytest.mark.parametrize("equal", [LARGEST_SUM - 1, LARGEST_SUM])
def test_softmax_of_512_equal_logits_is_refused_where_kernels_end_their_process(equal):
    """511 are computed by all. The kernels in fixed point abort on 512; LiteRT's default ones compute them."""
    operator = softmax_of(tensor("x", (1000,), 1, 0))
    values = np.full((1, 1000), -128, np.int8)
    values[:, :equal] = 127
    if equal < LARGEST_SUM:
        assert operator.warnings()
        assert_exact(operator, softmax, [values])
        return
    planned = operator.compute([values.astype(np.float32)], "xnnpack")
    (found,) = run(open_interpreter(write_file(plan_of(operator), "int8", "int8")), values)
    np.testing.assert_array_equal(found, planned)
    for kernels in ("reference", "tflm"):
        with pytest.raises(Exception, match="add up to 512"):
            operator.compute([values.astype(np.float32)], kernels)


def test_fewer_than_512_classes_need_no_warning():
    assert softmax_of(tensor("x", (LARGEST_SUM - 1,), 1, 0)).warnings() == ()
    assert softmax_of(tensor("x", (LARGEST_SUM,), 1, 0)).warnings() != ()
