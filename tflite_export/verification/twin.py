"""The plan as a Keras model that computes it in exact integer arithmetic: the twin of the file.

Integers are held in floats: float32 where every partial sum stays below 2^24, float64 beyond. Rounding is that of
LiteRT's default kernels (XNNPACK): one rounding to nearest, ties to even, of the float32 product of the sum and the
multiplier.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from satkeras._compat import keras
from tflite_export.plan import (
    Add,
    AddConstant,
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

# Integers up to here are exact in float32, in any order of summation.
EXACT_IN_FLOAT32 = 2**24


class IntegerOperator(keras.layers.Layer):
    """Computes one operator of a plan: float32 tensors of int8 values in, the same out."""

    def __init__(self, operator: Operator, **kwargs):
        super().__init__(name=layer_name(operator.output.name), trainable=False, dtype="float32", **kwargs)
        self.operator = operator
        if isinstance(operator, LinearOperator):
            # Variables, not constants: Grappler folds a constant multiplier into a constant kernel.
            self.kernel = tf.Variable(operator.weights, dtype=_exact_dtype(operator), trainable=False, name="kernel")
            self.bias = tf.Variable(operator.bias, dtype=_bias_dtype(operator), trainable=False, name="bias")
            self.multiplier = tf.Variable(operator.multiplier, dtype=tf.float32, trainable=False, name="multiplier")

    def call(self, inputs):
        compute = tf.autograph.experimental.do_not_convert(_COMPUTE[type(self.operator)])
        return compute(self, self.operator, *tf.nest.flatten(inputs))


class Codes(keras.layers.Layer):
    """Unsigned input codes 0 .. 255 as the int8 values -128 .. 127 of the same numbers, in float32."""

    def call(self, inputs):
        return tf.cast(inputs, tf.float32) - 128.0


def layer_name(tensor_name: str) -> str:
    """The twin's layer that computes a tensor of the plan."""
    return tensor_name.replace("/", "_")


def build_twin(plan: Plan) -> keras.Model:
    """A model from unsigned 8-bit input codes to the integers of the plan's outputs.

    Returns:
      A tf_keras model. Inputs: uint8, 0 .. 255. Outputs: float32 holding the int8 values of the file's outputs. Its
      layers are named after the plan's tensors, so `tf_keras.Model(twin.inputs, twin.get_layer(name).output)` gives
      any of them.
    """
    inputs = [keras.Input(x.shape, dtype="uint8", name=f"codes_{i}") for i, x in enumerate(plan.inputs)]
    values = {
        x: Codes(name=layer_name(x.name), dtype="float32")(codes) for x, codes in zip(plan.inputs, inputs, strict=True)
    }
    for operator in plan.operators:
        taken = [values[x] for x in operator.inputs]
        values[operator.output] = IntegerOperator(operator)(taken if len(taken) > 1 else taken[0])
    outputs = [values[x] for x in plan.outputs]
    return keras.Model(inputs, outputs if len(outputs) > 1 else outputs[0], name="integer_model")


def twin_tensors(plan: Plan) -> Callable[[Sequence[np.ndarray]], dict[Tensor, np.ndarray]]:
    """A function from a batch of input codes, an array for each input, to the integers of all tensors of the plan."""
    twin = build_twin(plan)
    tensors = (*plan.inputs, *plan.tensors)
    model = keras.Model(twin.inputs, [twin.get_layer(layer_name(tensor.name)).output for tensor in tensors])

    def compute(codes):
        values = model(list(codes), training=False)
        return {tensor: np.asarray(value, np.int32) for tensor, value in zip(tensors, values, strict=True)}

    return compute


def _exact_dtype(operator: LinearOperator):
    return tf.float32 if operator.largest_sum < EXACT_IN_FLOAT32 else tf.float64


def _bias_dtype(operator: LinearOperator):
    largest = operator.largest_sum + int(np.abs(operator.bias.astype(np.int64)).max())
    return tf.float32 if largest < EXACT_IN_FLOAT32 else tf.float64


def _requantize(layer: IntegerOperator, total):
    """XNNPACK's fp32 requantization of an exact sum without bias."""
    total = tf.cast(tf.cast(total, layer.bias.dtype) + layer.bias, tf.float32)
    return _store(layer.operator, tf.round(total * layer.multiplier))


def _store(operator, levels):
    """Adds the output's zero point and clamps to what the fused activation and int8 let through."""
    output = operator.output
    lowest, highest = -128, 127
    if operator.activation == "relu":
        lowest = output.zero_point
    elif operator.activation == "relu_n1_to_1":
        lowest, highest = output.lowest, output.highest
    return tf.clip_by_value(levels + output.zero_point, lowest, highest)


def _centred(layer: IntegerOperator, x):
    return tf.cast(x - layer.operator.inputs[0].zero_point, layer.kernel.dtype)


def _convolution(layer: IntegerOperator, operator: Convolution, x):
    window = operator.window
    x = _centred(layer, x)
    total = tf.nn.conv2d(x, layer.kernel, window.strides, window.padding, dilations=window.dilations)
    return _requantize(layer, total)


def _depthwise(layer: IntegerOperator, operator: DepthwiseConvolution, x):
    window = operator.window
    x, kernel = _centred(layer, x), layer.kernel[..., None]
    total = tf.nn.depthwise_conv2d(x, kernel, (1, *window.strides, 1), window.padding, dilations=window.dilations)
    return _requantize(layer, total)


def _fully_connected(layer: IntegerOperator, operator: FullyConnected, x):
    return _requantize(layer, tf.matmul(_centred(layer, x), layer.kernel))


def _add(layer: IntegerOperator, operator: Add, left, right):
    """XNNPACK's qs8-vadd: 21-bit multipliers, one shift that rounds half up."""
    ratios = [x.scale / operator.output.scale for x in operator.inputs]
    shift = 20 - math.frexp(float(max(ratios)))[1] + 1
    multipliers = [int(np.rint(np.ldexp(np.float64(ratio), shift))) for ratio in ratios]
    total = tf.constant(2.0 ** (shift - 1), tf.float64)
    for value, x, multiplier in zip((left, right), operator.inputs, multipliers, strict=True):
        total += tf.cast(value - x.zero_point, tf.float64) * multiplier
    return _store(operator, tf.cast(tf.floor(total * 2.0**-shift), tf.float32))


def _add_constant(layer: IntegerOperator, operator: AddConstant, x):
    return _store(operator, x - operator.inputs[0].zero_point + operator.offset)


def _multiply_constant(layer: IntegerOperator, operator: MultiplyConstant, x):
    constant = operator.constant
    product = (x - operator.inputs[0].zero_point) * (constant.integer - constant.zero_point)
    return _store(operator, tf.round(product * operator.multiplier))


def _mean(layer: IntegerOperator, operator: Mean, x):
    source, output = operator.inputs[0], operator.output
    keepdims = len(output.shape) == 3
    total = tf.reduce_sum(x, (1, 2), keepdims=keepdims)
    # XNNPACK's mean adds the zero points, in float32, before it rounds; that decides how ties fall.
    count = np.float32(source.shape[0] * source.shape[1])
    multiplier = source.scale / output.scale * (1 / count)
    offset = np.float32(output.zero_point) - np.float32(source.zero_point) * count * multiplier
    return tf.clip_by_value(tf.round(total * multiplier + offset), -128, 127)


def _max_pool(layer: IntegerOperator, operator: MaxPool, x):
    return tf.nn.max_pool2d(x, operator.pool, operator.window.strides, operator.window.padding)


def _pad(layer: IntegerOperator, operator: Pad, x):
    return tf.pad(x, ((0, 0), *operator.paddings, (0, 0)), constant_values=operator.output.zero_point)


def _reshape(layer: IntegerOperator, operator: Reshape, x):
    return tf.reshape(x, (-1, *operator.output.shape))


def _softmax(layer: IntegerOperator, operator: Softmax, x):
    """LiteRT's int8 softmax: a table of float32 exponentials, summed from left to right."""
    scale = operator.inputs[0].scale
    table = np.exp((-scale * np.arange(256, dtype=np.float32)).astype(np.float64)).astype(np.float32)
    below = tf.cast(tf.reduce_max(x, -1, keepdims=True) - x, tf.int32)
    powers = tf.gather(tf.constant(table), below)
    # cumsum adds in order; reduce_sum adds pairwise, which rounds differently.
    total = tf.cumsum(powers, -1)[..., -1:]
    inverse = 1.0 / (total * operator.output.scale)
    return tf.minimum(tf.floor(powers * inverse + 0.5) + operator.output.zero_point, 127.0)


_COMPUTE: dict[type[Operator], Callable] = {
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
