"""A plan as a TensorFlow function of FakeQuant operators, batch 1, for the converter to read.

Every FakeQuant is an 8-bit one whose range puts the plan's integers on int8; narrower FakeQuants make the converter
re-grid the tensor or fail. Weights carry per-channel FakeQuants: after a per-tensor one the converter emits a float
operator wherever batch norm has left a scale per channel.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tflite_export.plan import (
    Activation,
    Add,
    AddConstant,
    Constant,
    ConstantOperator,
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
)


def emit(plan: Plan) -> tf.Module:
    """A module whose function `serve` maps the plan's inputs to its outputs, all float32 with batch 1."""
    specs = [tf.TensorSpec((1, *x.shape), tf.float32, name=f"input_{i}") for i, x in enumerate(plan.inputs)]

    @tf.function(input_signature=specs, autograph=False)
    def serve(*inputs):
        values = {x: _fake_quantize(value, x) for x, value in zip(plan.inputs, inputs, strict=True)}
        for place, operator in enumerate(plan.operators):
            taken = [values[x] for x in operator.inputs]
            if isinstance(operator, LinearOperator):
                taken.append(_unlike(operator.weights * operator.weight_scale.astype(np.float64), place))
            if isinstance(operator, ConstantOperator):
                taken.append(_real_constant(operator.constant, place))
            values[operator.output] = _EMIT[type(operator)](operator, *taken)
        return {f"output_{i}": values[x] for i, x in enumerate(plan.outputs)}

    module = tf.Module()
    module.serve = serve
    return module


def _fake_quantize(value, tensor: Tensor):
    low, high = (float((end - tensor.zero_point) * np.float64(tensor.scale)) for end in (-128, 127))
    return tf.quantization.fake_quant_with_min_max_args(value, min=low, max=high, num_bits=8)


def _unlike(real: np.ndarray, place: int):
    """A float constant, no two operators' alike; FakeQuant rounds the difference, a fourth of a step at most, away.

    Of equal constants, as a shared layer has them, the converter makes one, and gives it scales of its own.
    """
    return tf.constant(real * (1 - (place % 1024) * 2.0**-20), tf.float32)


def _real_constant(constant: Constant, place: int):
    low, high, real = (
        (number - constant.zero_point) * np.float64(constant.scale) for number in (-128, 127, constant.integer)
    )
    unlike = _unlike(np.array([real]), place)
    return tf.quantization.fake_quant_with_min_max_args(unlike, min=float(low), max=float(high), num_bits=8)


def _per_channel(operator: LinearOperator, real):
    """The weights FakeQuantized per channel along the last axis."""
    scale = operator.weight_scale.astype(np.float64)
    low, high = (tf.constant(end * scale, tf.float32) for end in (-127, 127))
    return tf.quantization.fake_quant_with_min_max_vars_per_channel(real, low, high, num_bits=8, narrow_range=True)


def _bias(operator: LinearOperator):
    return tf.constant(operator.bias * operator.bias_scale.astype(np.float64), tf.float32)


def _activate(value, activation: Activation):
    if activation == "relu":
        return tf.nn.relu(value)
    if activation == "relu_n1_to_1":
        return tf.minimum(tf.maximum(value, -1.0), 1.0)
    return value


def _finish(operator, value):
    return _fake_quantize(_activate(value, operator.activation), operator.output)


def _convolution(operator: Convolution, x, real):
    window = operator.window
    total = tf.nn.conv2d(x, _per_channel(operator, real), window.strides, window.padding, dilations=window.dilations)
    return _finish(operator, total + _bias(operator))


def _depthwise(operator: DepthwiseConvolution, x, real):
    window = operator.window
    kernel = tf.reshape(_per_channel(operator, real), (*operator.weights.shape, 1))
    strides = (1, *window.strides, 1)
    total = tf.nn.depthwise_conv2d(x, kernel, strides, window.padding, dilations=window.dilations)
    return _finish(operator, total + _bias(operator))


def _fully_connected(operator: FullyConnected, x, real):
    # A per-channel FakeQuant on a matrix makes the converter fail; the one scale makes a per-tensor one do.
    scale = np.float64(operator.weight_scale[0])
    kernel = tf.quantization.fake_quant_with_min_max_args(
        real, -127 * scale, 127 * scale, num_bits=8, narrow_range=True
    )
    return _finish(operator, tf.matmul(x, kernel) + _bias(operator))


def _add(operator: Add, left, right):
    return _finish(operator, left + right)


def _add_constant(operator: AddConstant, x, real):
    return _finish(operator, x + real)


def _multiply_constant(operator: MultiplyConstant, x, real):
    return _finish(operator, x * real)


def _mean(operator: Mean, x):
    mean = tf.reduce_mean(x, (1, 2), keepdims=len(operator.output.shape) == 3)
    return _fake_quantize(mean, operator.output)


def _max_pool(operator: MaxPool, x):
    return tf.nn.max_pool2d(x, operator.pool, operator.window.strides, operator.window.padding)


def _pad(operator: Pad, x):
    return tf.pad(x, ((0, 0), *operator.paddings, (0, 0)))


def _reshape(operator: Reshape, x):
    return tf.reshape(x, (1, *operator.output.shape))


def _softmax(operator: Softmax, x):
    return tf.nn.softmax(x)


_EMIT: dict[type[Operator], Callable] = {
    Convolution: _convolution,
    DepthwiseConvolution: _depthwise,
    FullyConnected: _fully_connected,
    Add: _add,
    AddConstant: _add_constant,
    MultiplyConstant: _multiply_constant,
    Mean: _mean,
    MaxPool: _max_pool,
    Pad: _pad,
    Reshape: _reshape,
    Softmax: _softmax,
}
