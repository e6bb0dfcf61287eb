"""Tests of the twin: it, LiteRT's default kernels and an implementation in NumPy integers compute the same numbers."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from tflite_export.file.convert import convert
from tflite_export.lowering.requantize import SMALLEST_SCALE
from tflite_export.plan import (
    Add,
    AddConstant,
    Constant,
    Convolution,
    DepthwiseConvolution,
    FullyConnected,
    LinearOperator,
    MaxPool,
    Mean,
    MultiplyConstant,
    Operator,
    Pad,
    Plan,
    Reshape,
    Softmax,
    Tensor,
    Window,
)
from tflite_export.verification.interpreter import open_interpreter, run
from tflite_export.verification.twin import EXACT_IN_FLOAT32, build_twin

IMAGES = 3
SETTINGS = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # the operators are small as they are
    suppress_health_check=list(HealthCheck),
)


# The operators in NumPy integers, written from TFLite's quantization specification, with one rounding.


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


def clamp(levels: np.ndarray, output: Tensor, activation: str) -> np.ndarray:
    low, high = -128, 127
    if activation == "relu":
        low = output.zero_point
    if activation == "relu_n1_to_1":
        one = int(np.rint(1 / output.scale))
        low, high = output.zero_point - one, output.zero_point + one
    return np.clip(levels.astype(np.int64) + output.zero_point, low, high)


def requantized(operator: LinearOperator, total: np.ndarray) -> np.ndarray:
    total = total + operator.bias.astype(np.int64)
    assert np.abs(total).max() < 2**31
    multiplier = operator.inputs[0].scale * operator.weight_scale / operator.output.scale
    assert multiplier.dtype == np.float32
    levels = np.rint(total.astype(np.float32) * multiplier)
    return clamp(levels, operator.output, operator.activation)


def numpy_convolution(operator: Convolution, x):
    seen = patches(x - operator.inputs[0].zero_point, operator.weights.shape[:2], operator.window, 0)
    return requantized(operator, np.einsum("nhwcij,ijco->nhwo", seen, operator.weights.astype(np.int64)))


def numpy_depthwise(operator: DepthwiseConvolution, x):
    seen = patches(x - operator.inputs[0].zero_point, operator.weights.shape[:2], operator.window, 0)
    return requantized(operator, np.einsum("nhwcij,ijc->nhwc", seen, operator.weights.astype(np.int64)))


def numpy_fully_connected(operator: FullyConnected, x):
    return requantized(operator, (x - operator.inputs[0].zero_point) @ operator.weights.astype(np.int64))


def numpy_add(operator: Add, left, right):
    """Fixed-point multipliers of 21 bits at most, one shift that rounds half up."""
    ratios = [float(x.scale / operator.output.scale) for x in operator.inputs]
    shift = 20 - math.floor(math.log2(max(ratios)))
    total = np.full(left.shape, 1 << (shift - 1), np.int64)
    for x, values, ratio in zip(operator.inputs, (left, right), ratios, strict=True):
        total += (values - x.zero_point) * round(ratio * 2**shift)
    return clamp(total >> shift, operator.output, operator.activation)


def numpy_add_constant(operator: AddConstant, x):
    (source,), constant = operator.inputs, operator.constant
    offset = (constant.integer - constant.zero_point) * int(constant.scale / source.scale)
    return clamp(x - source.zero_point + offset, operator.output, operator.activation)


def numpy_multiply_constant(operator: MultiplyConstant, x):
    (source,), constant = operator.inputs, operator.constant
    multiplier = source.scale * constant.scale / operator.output.scale
    assert multiplier.dtype == np.float32
    product = (x - source.zero_point) * (constant.integer - constant.zero_point)
    return clamp(np.rint(product.astype(np.float32) * multiplier), operator.output, operator.activation)


def numpy_mean(operator: Mean, x):
    """The zero points take part in the rounding: XNNPACK rounds `sum * multiplier + offset`, all in float32."""
    (source,), output = operator.inputs, operator.output
    count = np.float32(x.shape[1] * x.shape[2])
    multiplier = source.scale / output.scale * (1 / count)
    offset = np.float32(output.zero_point) - np.float32(source.zero_point) * count * multiplier
    levels = np.rint(x.sum((1, 2)).astype(np.float32) * multiplier + offset)
    return np.clip(levels, -128, 127).astype(np.int64).reshape(-1, *output.shape)


def numpy_max_pool(operator: MaxPool, x):
    return patches(x, operator.pool, operator.window, -128).max((-2, -1))


def numpy_pad(operator: Pad, x):
    return np.pad(x, [(0, 0), *operator.paddings, (0, 0)], constant_values=operator.inputs[0].zero_point)


def numpy_reshape(operator: Reshape, x):
    return x.reshape(-1, *operator.output.shape)


def numpy_softmax(operator: Softmax, x):
    powers = np.exp(np.float64(operator.inputs[0].scale) * (x - x.max(-1, keepdims=True))).astype(np.float32)
    total = np.zeros(powers.shape[:-1], np.float32)
    for column in np.moveaxis(powers, -1, 0):
        total = total + column
    inverse = np.float32(1) / (total * np.float32(1 / 256))
    return np.minimum(np.floor(powers * inverse[..., None] + np.float32(0.5)) - 128, 127).astype(np.int64)


NUMPY = {
    Convolution: numpy_convolution,
    DepthwiseConvolution: numpy_depthwise,
    FullyConnected: numpy_fully_connected,
    Add: numpy_add,
    AddConstant: numpy_add_constant,
    MultiplyConstant: numpy_multiply_constant,
    Mean: numpy_mean,
    MaxPool: numpy_max_pool,
    Pad: numpy_pad,
    Reshape: numpy_reshape,
    Softmax: numpy_softmax,
}


# Operators drawn at random.

sizes = st.integers(1, 7)
zero_points = st.integers(-128, 127)
seeds = st.integers(0, 2**32 - 1)
# Powers of two make sums that lie exactly between two levels.
scales = st.one_of(
    st.integers(-9, 1).map(lambda exponent: np.float32(2.0**exponent)),
    st.floats(2**-9, 2, width=32).map(np.float32),
)


def tensor(name: str, shape: tuple[int, ...], scale, zero_point: int) -> Tensor:
    return Tensor(name, shape, np.float32(scale), zero_point, float(scale))


@st.composite
def tensors(draw, name: str, shape: tuple[int, ...]) -> Tensor:
    return tensor(name, shape, draw(scales), draw(zero_points))


@st.composite
def windows(draw, x: Tensor, size: tuple[int, int], square: bool) -> Window:
    """A window that fits; `square`: TensorFlow's own depthwise kernels want equal strides."""
    strides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    if square:
        strides = (strides[0], strides[0])
    dilation = draw(st.integers(1, 3)) if strides == (1, 1) else 1
    fits = all((k - 1) * dilation < length for k, length in zip(size, x.shape, strict=False))
    padding = draw(st.sampled_from(["SAME", "VALID"] if fits else ["SAME"]))
    return Window(strides, padding, (dilation, dilation))


def output_shape(x: Tensor, size: tuple[int, int], window: Window, channels: int) -> tuple[int, ...]:
    image = np.zeros((1, *x.shape[:2], 1))
    return (*patches(image, size, window, 0).shape[1:3], channels)


@st.composite
def linear(draw, kind: type[LinearOperator], x: Tensor, weights: np.ndarray, shape: tuple[int, ...], **fields):
    """A weighted sum whose multiplier leaves the result within int8 about as often as not."""
    channels, rng = weights.shape[-1], np.random.default_rng(draw(seeds))
    bias = rng.integers(-1, 1, channels, endpoint=True) * 2 ** draw(st.integers(0, 29))
    bias += rng.integers(-999, 999, channels)
    sums = np.sqrt((weights.reshape(-1, channels).astype(float) ** 2).sum(0)) * 100 + np.abs(bias) + 1
    activation = draw(st.sampled_from(["none", "relu", "relu_n1_to_1"]))
    top = draw(st.sampled_from([1, 3, 7, 15, 31, 63]))
    output = draw(tensors("y", shape))
    if activation == "relu_n1_to_1":
        output = Tensor("y", shape, np.float32(1 / top), 0, 1 / top, -top, top)
    wanted = 2.0 ** draw(st.integers(4, 8)) / sums
    scale = (wanted * output.scale / x.scale).astype(np.float32)
    if kind is FullyConnected or draw(st.booleans()):
        scale = np.full_like(scale, np.median(scale))
    if draw(st.booleans()):
        scale = np.exp2(np.rint(np.log2(scale)))
    assume(scale.min() >= SMALLEST_SCALE)  # lowering refuses smaller ones: the converter cannot hold them
    return kind((x,), output, weights, scale, bias.astype(np.int32), activation, **fields)


@st.composite
def kernels(draw, *shape: int) -> np.ndarray:
    largest = draw(st.sampled_from([1, 3, 15, 127]))
    return np.random.default_rng(draw(seeds)).integers(-largest, largest, shape, np.int8, endpoint=True)


@st.composite
def convolutions(draw) -> Convolution:
    x = draw(tensors("x", draw(st.tuples(sizes, sizes, sizes))))
    size = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    window, channels = draw(windows(x, size, square=False)), draw(sizes)
    weights = draw(kernels(*size, x.shape[-1], channels))
    return draw(linear(Convolution, x, weights, output_shape(x, size, window, channels), window=window))


@st.composite
def depthwise_convolutions(draw) -> DepthwiseConvolution:
    x = draw(tensors("x", draw(st.tuples(sizes, sizes, st.integers(1, 9)))))
    size = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    window, channels = draw(windows(x, size, square=True)), x.shape[-1]
    shape = output_shape(x, size, window, channels)
    return draw(linear(DepthwiseConvolution, x, draw(kernels(*size, channels)), shape, window=window))


@st.composite
def fully_connected(draw) -> FullyConnected:
    x, units = draw(tensors("x", (draw(st.integers(1, 40)),))), draw(st.integers(1, 12))
    return draw(linear(FullyConnected, x, draw(kernels(*x.shape, units)), (units,)))


@st.composite
def additions(draw) -> Add:
    shape = draw(st.tuples(sizes, sizes, sizes))
    left, right, output = (draw(tensors(name, shape)) for name in ("a", "b", "y"))
    assume(all(2**-10 <= x.scale / output.scale < 2**8 for x in (left, right)))
    return Add((left, right), output, activation=draw(st.sampled_from(["none", "relu"])))


shapes = st.one_of(st.tuples(sizes), st.tuples(sizes, sizes, sizes))


@st.composite
def constant_additions(draw) -> AddConstant:
    x = draw(tensors("x", draw(shapes)))
    constant = Constant(draw(zero_points), x.scale * np.float32(draw(st.sampled_from([1, 2]))), draw(zero_points))
    output, activation = tensor("y", x.shape, x.scale, draw(zero_points)), draw(st.sampled_from(["none", "relu"]))
    assume(constant.integer != constant.zero_point or activation == "relu")  # the converter drops a bare `x + 0`
    return AddConstant((x,), output, constant=constant, activation=activation)


@st.composite
def constant_multiplications(draw) -> MultiplyConstant:
    x = draw(tensors("x", draw(shapes)))
    constant = Constant(draw(zero_points), draw(scales), draw(zero_points))
    assume(constant.integer != constant.zero_point)  # the converter makes nothing of a product with 0
    activation = draw(st.sampled_from(["none", "relu", "relu_n1_to_1"]))
    output = draw(tensors("y", x.shape))
    if activation == "relu_n1_to_1":
        top = draw(st.sampled_from([1, 3, 7, 15, 31, 63]))
        output = Tensor("y", x.shape, np.float32(1 / top), 0, 1 / top, -top, top)
    assume(2**-16 <= x.scale * constant.scale / output.scale < 2**8)
    return MultiplyConstant((x,), output, constant=constant, activation=activation)


@st.composite
def means(draw) -> Mean:
    x = draw(tensors("x", draw(st.tuples(st.integers(1, 12), st.integers(1, 12), sizes))))
    shape = (1, 1, x.shape[-1]) if draw(st.booleans()) else x.shape[-1:]
    ratio = draw(st.sampled_from([0.11, 0.25, 0.5, 1, 1.7]))
    return Mean((x,), tensor("y", shape, x.scale * np.float32(ratio), draw(zero_points)))


@st.composite
def max_pools(draw) -> MaxPool:
    x = draw(tensors("x", draw(st.tuples(sizes, sizes, sizes))))
    pool = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    window = Window(draw(st.tuples(st.integers(1, 3), st.integers(1, 3))))
    if not all(k <= length for k, length in zip(pool, x.shape, strict=False)) or draw(st.booleans()):
        window = Window(window.strides, "SAME")
    shape = output_shape(x, pool, window, x.shape[-1])
    return MaxPool((x,), tensor("y", shape, x.scale, x.zero_point), pool=pool, window=window)


@st.composite
def pads(draw) -> Pad:
    x = draw(tensors("x", draw(st.tuples(sizes, sizes, sizes))))
    amounts = st.tuples(st.integers(0, 3), st.integers(0, 3))
    paddings = draw(st.tuples(amounts, amounts).filter(lambda found: np.sum(found)))
    shape = tuple(length + sum(pair) for length, pair in zip(x.shape, (*paddings, (0, 0)), strict=True))
    return Pad((x,), tensor("y", shape, x.scale, x.zero_point), paddings=paddings)


@st.composite
def softmaxes(draw) -> Softmax:
    x = draw(tensors("x", (draw(st.integers(2, 200)),)))
    return Softmax((x,), tensor("y", x.shape, 1 / 256, -128))


OPERATORS = {
    "convolution": convolutions(),
    "depthwise": depthwise_convolutions(),
    "fully_connected": fully_connected(),
    "add": additions(),
    "add_constant": constant_additions(),
    "multiply_constant": constant_multiplications(),
    "mean": means(),
    "max_pool": max_pools(),
    "pad": pads(),
    "softmax": softmaxes(),
}


def plan_of(*operators: Operator) -> Plan:
    """A plan of a chain of operators."""
    return Plan(operators[0].inputs, operators, (operators[-1].output,))


def random_codes(plan: Plan, seed: int) -> list[np.ndarray]:
    """Images for each input, the last one of extreme values."""
    rng = np.random.default_rng(seed)
    codes = [rng.integers(0, 256, (IMAGES, *x.shape)).astype(np.uint8) for x in plan.inputs]
    for values in codes:
        values[-1] = rng.choice([0, 255], values.shape[1:])
    return codes


def assert_all_agree(plan: Plan, codes: list[np.ndarray]) -> np.ndarray:
    """NumPy, the twin and LiteRT's default kernels give equal integers; returns the first output's."""
    values = {x: code.astype(np.int64) - 128 for x, code in zip(plan.inputs, codes, strict=True)}
    for operator in plan.operators:
        values[operator.output] = NUMPY[type(operator)](operator, *(values[x] for x in operator.inputs))
    from_twin = build_twin(plan)(codes if len(codes) > 1 else codes[0])
    from_file = run(open_interpreter(convert(plan)), *codes)
    from_twin = from_twin if isinstance(from_twin, list) else [from_twin]
    for y, twin, file in zip(plan.outputs, from_twin, from_file, strict=True):
        np.testing.assert_array_equal(twin, values[y], f"the twin differs from NumPy at {y}")
        np.testing.assert_array_equal(file.reshape(values[y].shape), values[y], f"LiteRT differs from NumPy at {y}")
    return values[plan.outputs[0]]


def side_by_side(operators: list[Operator]) -> Plan:
    """A plan of unconnected operators: one conversion for all of them."""
    renamed = []
    for index, operator in enumerate(operators):
        inputs, output = (
            tuple(dataclasses.replace(x, name=f"{x.name}_{index}") for x in tensors)
            for tensors in (operator.inputs, (operator.output,))
        )
        renamed.append(dataclasses.replace(operator, inputs=inputs, output=output[0]))
    inputs = tuple(x for operator in renamed for x in operator.inputs)
    return Plan(inputs, tuple(renamed), tuple(operator.output for operator in renamed))


def check_drawn(kind: str, data) -> None:
    plan = side_by_side([data.draw(OPERATORS[kind]) for _ in range(6)])
    assert_all_agree(plan, random_codes(plan, data.draw(seeds)))


@pytest.mark.parametrize("kind", OPERATORS)
@settings(SETTINGS, max_examples=6)
@given(data=st.data())
def test_drawn_operators(kind, data):
    check_drawn(kind, data)


@pytest.mark.slow
@pytest.mark.parametrize("kind", OPERATORS)
@settings(SETTINGS, max_examples=100)
@given(data=st.data())
def test_drawn_operators_at_length(kind, data):
    check_drawn(kind, data)


def wide_sum(kind: type[LinearOperator], bias: int) -> LinearOperator:
    """A sum of 2304 products of one sign, far beyond 2^24 and of any parity, so that float32 would lose its end."""
    shapes = {Convolution: ((3, 3, 256), (3, 3, 256, 4), (1, 1, 4)), FullyConnected: ((2304,), (2304, 4), (4,))}
    shape, kernel, result = shapes[kind]
    weights = np.random.default_rng(0).integers(100, 127, kernel, np.int8, endpoint=True) * np.int8([1, -1, 1, -1])
    # The sums differ by some 10^5 from image to image: 2^11 to a level, in a window around their mean.
    x, output = tensor("x", shape, 1, -128), tensor("y", result, 2.0**11, 0)
    mean = 127 * 113 * 2304
    biases = np.int32([-mean, mean, -mean, mean]) + np.int32([bias])
    return kind((x,), output, weights, np.ones(4, np.float32), biases, "none")


@pytest.mark.parametrize("bias", [0, 1, 12345])
@pytest.mark.parametrize("kind", [Convolution, FullyConnected])
def test_sums_beyond_float32(kind, bias):
    operator = wide_sum(kind, bias)
    assert operator.largest_sum > EXACT_IN_FLOAT32
    plan = plan_of(operator)
    codes = np.random.default_rng(1).integers(0, 256, (20, *operator.inputs[0].shape)).astype(np.uint8)
    result = assert_all_agree(plan, [codes])
    assert len(np.unique(result)) > 30


def test_a_sum_that_float32_cannot_add_up():
    """One unit at the end of a sum beyond 2^24 decides between two levels."""
    x, output = tensor("x", (1025,), 1, -128), tensor("y", (1,), 2, 0)
    weights = np.full((1025, 1), 127, np.int8)
    weights[-1] = 1
    bias = np.int32([-127 * 131 * 1024])
    operator = FullyConnected((x,), output, weights, np.float32([1]), bias, "none")
    assert 127 * 131 * 1024 > EXACT_IN_FLOAT32
    codes = np.full((8, 1025), 131, np.uint8)
    codes[:, -1] = np.arange(8)
    levels = assert_all_agree(plan_of(operator), [codes])
    np.testing.assert_array_equal(levels.ravel(), [0, 0, 1, 2, 2, 2, 3, 4])


@pytest.mark.parametrize("kind", [Convolution, DepthwiseConvolution, FullyConnected])
def test_no_bias(kind):
    shape, kernel = {
        Convolution: ((4, 4, 3), (3, 3, 3, 3)),
        DepthwiseConvolution: ((4, 4, 3), (3, 3, 3)),
        FullyConnected: ((3,), (3, 3)),
    }[kind]
    weights = np.random.default_rng(0).integers(-127, 127, kernel, np.int8)
    result = shape if kind is FullyConnected else (2, 2, 3)
    x, output = tensor("x", shape, 0.5, 3), tensor("y", result, 100, -7)
    operator = kind((x,), output, weights, np.ones(3, np.float32), np.zeros(3, np.int32), "none")
    plan = plan_of(operator)
    assert_all_agree(plan, random_codes(plan, 0))


@pytest.mark.parametrize("sum_in_levels, expected", [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (-2.5, -2)])
def test_linear_operators_round_ties_to_even(sum_in_levels, expected):
    x, output = tensor("x", (1,), 1, 0), tensor("y", (1,), 2, 0)
    bias = np.int32([2 * sum_in_levels])
    operator = FullyConnected((x,), output, np.ones((1, 1), np.int8), np.float32([1]), bias, "none")
    assert assert_all_agree(plan_of(operator), [np.full((1, 1), 128, np.uint8)]).item() == expected


@pytest.mark.parametrize("sum_in_levels, expected", [(0.5, 1), (1.5, 2), (-0.5, 0), (-1.5, -1)])
def test_add_rounds_ties_up(sum_in_levels, expected):
    left, right, output = tensor("a", (1, 1, 1), 1, 0), tensor("b", (1, 1, 1), 1, 0), tensor("y", (1, 1, 1), 2, 0)
    operator = Add((left, right), output, activation="none")
    codes = [np.full((1, 1, 1, 1), value, np.uint8) for value in (128 + int(2 * sum_in_levels), 128)]
    assert assert_all_agree(plan_of(operator), codes).item() == expected


def test_softmax_is_within_a_level_of_the_real_one():
    operator = Softmax((tensor("x", (10,), 0.1, 5),), tensor("y", (10,), 1 / 256, -128))
    plan = plan_of(operator)
    (codes,) = random_codes(plan, 2)
    levels = assert_all_agree(plan, [codes])
    powers = np.exp(0.1 * (codes.astype(float) - 128 - 5))
    assert np.abs((levels + 128) / 256 - powers / powers.sum(-1, keepdims=True)).max() <= 1 / 256


@pytest.mark.parametrize("bits", [2, 4, 7])
def test_saturation_is_the_upper_clip_of_a_narrow_unsigned_grid(bits):
    """Sums from far below 0 to far beyond the clip give the levels 0 .. 2^k - 1, at the top of int8."""
    top = 2**bits - 1
    x, output = tensor("x", (1, 256, 1), 1, 0), tensor("y", (1, 256, 1), 1, 127 - top)
    scale, bias = np.float32([1]), np.int32([0])
    weights = np.ones((1, 1, 1, 1), np.int8)
    operator = Convolution((x,), output, weights, scale, bias, "relu")
    codes = np.arange(256, dtype=np.uint8).reshape(1, 1, 256, 1)
    levels = assert_all_agree(plan_of(operator), [codes]).ravel() - output.zero_point
    np.testing.assert_array_equal(levels, np.clip(np.arange(-128, 128), 0, top))


def test_variables_do_not_train():
    plan = plan_of(wide_sum(Convolution, 0))
    assert not build_twin(plan).trainable_variables
