"""Who pads, over every small shape: the same sums, and no SAME that TensorFlow's own interpreter computes wrongly."""

import itertools

import numpy as np
import pytest

from tflite_export.lowering.padding import explicit_padding, fold_padding
from tflite_export.operators import Convolution, Pad, Window
from tflite_export.plan import Plan, Tensor


def convolution(x, kernel, window, shape):
    rng = np.random.default_rng(0)
    output = Tensor("conv", shape, np.float32(0.5), 0, 0.5)
    return Convolution(
        (x,),
        output,
        weights=rng.integers(-3, 4, (*kernel, 2, 1), np.int8),
        weight_scale=np.full(1, 0.01, np.float32),
        bias=np.zeros(1, np.int32),
        activation="none",
        window=window,
    )


def plan_of(*operators):
    first, last = operators[0].inputs[0], operators[-1].output
    return Plan((first,), operators, (last,), ("image",), ("conv",))


def computed(plan, images):
    values = {plan.inputs[0]: images}
    for operator in plan.operators:
        values[operator.output] = np.asarray(operator.compute([values[x] for x in operator.inputs], "xnnpack"))
    return values[plan.outputs[0]]


SHAPES = list(itertools.product((4, 5), (1, 2, 3), (1, 2, 3), (1, 2)))


@pytest.mark.parametrize(("size", "kernel", "stride", "dilation"), SHAPES)
def test_explicit_padding_computes_the_same(size, kernel, stride, dilation):
    if stride > 1 and dilation > 1:
        return
    x = Tensor("image", (size, size, 2), np.float32(0.1), -5, 0.1)
    out = -(-size // stride)
    before = plan_of(
        convolution(x, (kernel, kernel), Window((stride, stride), "SAME", (dilation, dilation)), (out, out, 1))
    )
    after = explicit_padding(before)
    images = np.random.default_rng(1).integers(-128, 128, (2, size, size, 2)).astype(np.float32)
    np.testing.assert_array_equal(computed(after, images), computed(before, images))
    window = (kernel - 1) * dilation + 1
    *_, last = after.operators
    if (out - 1) * stride + window <= size:  # SAME adds nothing
        assert len(after.operators) == 1 and last.window.padding == "VALID"
    else:
        assert len(after.operators) == 1 and last.window.padding == "SAME"


def test_a_kernel_smaller_than_its_stride_gets_a_pad_of_its_own():
    # Height: windows of 1 every 3 pixels end before the fifth row does. Width: windows of 5 need padding.
    x = Tensor("image", (5, 4, 2), np.float32(0.1), -5, 0.1)
    before = plan_of(convolution(x, (1, 5), Window((3, 1), "SAME"), (2, 4, 1)))
    after = explicit_padding(before)
    pad, sum_ = after.operators
    assert isinstance(pad, Pad) and pad.paddings == ((0, 0), (2, 2)) and sum_.window.padding == "VALID"
    images = np.random.default_rng(1).integers(-128, 128, (2, 5, 4, 2)).astype(np.float32)
    np.testing.assert_array_equal(computed(after, images), computed(before, images))


def test_a_pad_that_same_can_do_is_dropped_and_another_stays():
    x = Tensor("image", (6, 6, 2), np.float32(0.1), -5, 0.1)
    padded = Tensor("pad", (8, 8, 2), np.float32(0.1), -5, 0.1)
    pad = Pad((x,), padded, ((1, 1), (1, 1)), layers=("pad",))
    fits = plan_of(pad, convolution(padded, (3, 3), Window(), (6, 6, 1)))
    (folded,) = fold_padding(fits).operators
    assert folded.window.padding == "SAME" and folded.inputs == (x,)
    images = np.random.default_rng(1).integers(-128, 128, (2, 6, 6, 2)).astype(np.float32)
    np.testing.assert_array_equal(computed(fold_padding(fits), images), computed(fits, images))
    strided = plan_of(pad, convolution(padded, (3, 3), Window((2, 2)), (3, 3, 1)))  # SAME would pad below alone
    assert fold_padding(strided).operators == strided.operators
