"""Tests of functions of one tensor: SOFTMAX, LOGISTIC, TANH, HARD_SWISH, LEAKY_RELU, PRELU."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.tflite_export.operators import gemmlowp, rounding
from tests.tflite_export.operators.agreement import Sample, assert_exact, assert_sample_exact, plan_of, random_values
from tests.tflite_export.operators.drawing import scales, seeds, tensor, tensors, zero_points
from tflite_export.file.writer import write_file
from tflite_export.operators import HardSwish, L2Normalization, LeakyRelu, Logistic, PRelu, Softmax, Tanh
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


# L2_NORMALIZATION.


def unit(operator: L2Normalization, kernels: str, x):
    return gemmlowp.unit_vectors(x - operator.inputs[0].zero_point)


@st.composite
def units(draw) -> L2Normalization:
    x = draw(tensors("x", draw(st.sampled_from([(), (3,), (2, 2)])) + (draw(st.integers(1, 600)),)))
    return L2Normalization((x,), tensor("y", x.shape, 1 / 128, 0))


# Functions of every element.


def float_table(operator, kernels: str, function, x) -> np.ndarray:
    """XNNPACK adds the zero point before it rounds, ties to even; LiteRT's kernels after it, ties away from zero."""
    (source,), output = operator.inputs, operator.output
    steps = function(source.scale * (x - source.zero_point).astype(np.float32)) * (np.float32(1) / output.scale)
    assert steps.dtype == np.float32
    if kernels == "xnnpack":
        return np.clip(np.rint(steps + np.float32(output.zero_point)), -128, 127).astype(np.int64)
    return np.clip(rounding.away_from_zero(steps.astype(np.float64)) + output.zero_point, -128, 127)


def logistic(operator: Logistic, kernels: str, x):
    def in_float64(reals):
        power = np.exp(np.clip(reals.astype(np.float64), -700, 700))
        return np.where(reals > 100, 1, np.where(reals < -100, 0, power / (1 + power))).astype(np.float32)

    def in_float32(reals):
        with np.errstate(over="ignore"):
            return np.float32(1) / (np.float32(1) + np.exp(-reals.astype(np.float64)).astype(np.float32))

    if kernels == "tflm":
        return gemmlowp.logistic(x - operator.inputs[0].zero_point, operator.inputs[0].scale)
    return float_table(operator, kernels, in_float64 if kernels == "xnnpack" else in_float32, x)


def tanh(operator: Tanh, kernels: str, x):
    if kernels == "tflm":
        return gemmlowp.tanh(x - operator.inputs[0].zero_point, operator.inputs[0].scale)
    return float_table(operator, kernels, lambda reals: np.tanh(reals.astype(np.float64)).astype(np.float32), x)


def hard_swish(operator: HardSwish, kernels: str, x):
    (source,), output = operator.inputs, operator.output
    return rounding.clamped(gemmlowp.hard_swish(x - source.zero_point, source.scale, output.scale), output)


def leaky_relu(operator: LeakyRelu, kernels: str, x):
    source, dtype = operator.inputs[0], np.float64 if kernels == "tflm" else np.float32
    centred, scale = x - source.zero_point, dtype(source.scale)
    if kernels == "xnnpack":
        below = np.floor(centred * np.rint(256 * operator.slope) / 256 + 0.5)
    else:
        below = rounding.twice(centred, np.float64(scale * dtype(operator.slope) / scale))
    return rounding.clamped(np.where(centred >= 0, centred, below), operator.output)


def prelu(operator: PRelu, kernels: str, x):
    source, dtype = operator.inputs[0], np.float64 if kernels == "tflm" else np.float32
    read, alpha, written = (dtype(scale) for scale in (source.scale, operator.alpha_scale, operator.output.scale))
    centred, slope = x - source.zero_point, operator.alpha.astype(np.int64) - operator.alpha_zero_point
    above = rounding.twice(centred, np.float64(read / written))
    below = rounding.twice(centred * slope, np.float64(read * alpha / written))
    return rounding.clamped(np.where(centred >= 0, above, below), operator.output)


shapes = st.sampled_from([(256,), (3, 5), (4, 4, 3)])


@st.composite
def fixed_outputs(draw, kind, scale: float, zero_point: int):
    x = draw(tensors("x", draw(shapes)))
    return kind((x,), tensor("y", x.shape, scale, zero_point))


@st.composite
def hard_swishes(draw) -> HardSwish:
    x = draw(tensors("x", draw(shapes)))
    output = draw(tensors("y", x.shape))
    assume(x.scale / 128 < output.scale <= x.scale * 512)
    return HardSwish((x,), output)


@st.composite
def leaky_relus(draw) -> LeakyRelu:
    x = draw(tensors("x", draw(shapes)))
    output = dataclasses.replace(x, name="y", lowest=-128, highest=127)
    return LeakyRelu((x,), output, draw(st.integers(1, 256)) / 256)


@st.composite
def prelus(draw) -> PRelu:
    """A slope for each channel, or for each value."""
    x, rng = draw(tensors("x", draw(shapes))), np.random.default_rng(draw(seeds))
    alpha_shape = draw(st.sampled_from([(1,) * (len(x.shape) - 1) + x.shape[-1:], x.shape]))
    alpha = rng.integers(-128, 127, alpha_shape, np.int8, endpoint=True)
    return PRelu((x,), draw(tensors("y", x.shape)), alpha, np.float32(draw(scales)), draw(zero_points))


SAMPLES = {
    L2Normalization: Sample(units(), unit),
    Softmax: Sample(softmaxes(), softmax),
    Logistic: Sample(fixed_outputs(Logistic, 1 / 256, -128), logistic),
    Tanh: Sample(fixed_outputs(Tanh, 1 / 128, 0), tanh),
    HardSwish: Sample(hard_swishes(), hard_swish),
    LeakyRelu: Sample(leaky_relus(), leaky_relu),
    PRelu: Sample(prelus(), prelu),
}


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


@pytest.mark.parametrize("kind", [Logistic, Tanh, HardSwish, PRelu])
@given(data=st.data())
def test_all_values(kind, data):
    operator = data.draw(SAMPLES[kind].operators)
    x, y = (dataclasses.replace(one, shape=(256,)) for one in (*operator.inputs, operator.output))
    operator = dataclasses.replace(operator, inputs=(x,), output=y)
    if kind is PRelu:
        operator = dataclasses.replace(operator, alpha=np.resize(operator.alpha, 256))
    assert_exact(operator, SAMPLES[kind].definition, [np.arange(-128, 128).astype(np.int8)[None]])


@pytest.mark.parametrize("moved", [0.0, 4e-5])
@given(operator=prelus(), slope=st.integers(-128, 127))
def test_a_product_with_a_slope_is_within_its_slack_which_is_small(moved, operator, slope):
    x = operator.inputs[0]
    x = dataclasses.replace(x, shape=(256,), step=float(x.scale) * (1 + moved))
    y = dataclasses.replace(operator.output, shape=(256,))
    operator = dataclasses.replace(operator, inputs=(x,), output=y, alpha=np.full(1, slope, np.int8))
    codes = np.arange(-128, 128)
    reals = x.step * (codes - x.zero_point)
    below = float(operator.alpha_scale) * (slope - operator.alpha_zero_point) * reals
    steps = np.where(reals >= 0, reals, below) / float(y.scale) + y.zero_point
    levels = operator.compute([codes.astype(np.float32)], "xnnpack")
    off = np.abs(levels - np.clip(steps, -128, 127)).max()
    assert off <= 0.5 + operator.slack() < 0.76 + 256 * moved


def test_an_add_that_moved_the_scale_counts_into_the_slack():
    x = dataclasses.replace(tensor("x", (1,), 1.0, -128), step=1 + 4e-5)
    y = tensor("y", (1,), 255 / 200.4995, -128)
    operator = PRelu((x,), y, np.zeros(1, np.int8), np.float32(1), 0)
    (level,) = np.asarray(operator.compute([np.float32([127])], "xnnpack"))
    off = abs(level + 128 - 255 * x.step / float(y.scale))
    assert 0.502 < off <= 0.5 + operator.slack()


@pytest.mark.parametrize("ratio", [1 / 127, 1 / 64, 1 / 3, 1, 127, 511.9, 512])
@pytest.mark.parametrize("scale", [2.0**-9, 0.0235, 0.1])
def test_hard_swish_at_the_ends_of_its_scales(scale, ratio):
    operator = HardSwish((tensor("x", (256,), scale, -3),), tensor("y", (256,), scale * ratio, 5))
    assert_exact(operator, hard_swish, [np.arange(-128, 128).astype(np.int8)[None]])


@pytest.mark.parametrize("scale", [2.0**-30, 2.0**-10, 1 / 15, 0.0625, 15 / 128, 1, 7])
@pytest.mark.parametrize("kind, function", [(Logistic, lambda v: 1 / (1 + np.exp(-v))), (Tanh, np.tanh)])
def test_tables_are_within_a_level_of_the_real_function(kind, function, scale):
    y = tensor("y", (256,), *((1 / 256, -128) if kind is Logistic else (1 / 128, 0)))
    operator = kind((tensor("x", (256,), scale, -3),), y)
    values = np.arange(-128, 128).astype(np.int8)[None]
    with np.errstate(over="ignore"):
        real = function(scale * (values.astype(float) + 3)) / y.scale + y.zero_point
    for levels in assert_exact(operator, SAMPLES[kind].definition, [values]).values():
        assert np.abs(levels - np.clip(real, -128, 127)).max() <= 1


@pytest.mark.parametrize("scale, zero_point, value", [(0.10913759469985962, 66, 87), (0.1500914841890335, -19, 2)])
def test_a_logistic_function_so_near_a_tie_that_families_part(scale, zero_point, value):
    """XNNPACK computes it in float64, LiteRT's own kernels in float32."""
    operator = Logistic((tensor("x", (1,), scale, zero_point),), tensor("y", (1,), 1 / 256, -128))
    results = assert_exact(operator, logistic, [np.int8([[value]])])
    assert abs(int(results["xnnpack"].item()) - int(results["reference"].item())) == 1


def test_the_micro_prelu_divides_scales_in_float64():
    """A product of scales that float32 rounds up to 1/8, whose mantissa then has one bit less: 3/8 becomes 1."""
    one, other = np.float32(1 + 2.0**-13), np.float32(0.125 * (1 - 2.0**-13))
    operator = PRelu((tensor("x", (1,), one, 0),), tensor("y", (1,), 1, 0), np.int8([-1]), other, 0)
    results = assert_exact(operator, prelu, [np.int8([[-3]])])
    assert {kernels: int(result.item()) for kernels, result in results.items()} == {
        "xnnpack": 1,
        "reference": 1,
        "tflm": 0,
    }


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
