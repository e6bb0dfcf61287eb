"""The plan as a Keras model that computes it in exact integer arithmetic: the twin of the file."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from satkeras._compat import keras
from satkeras.quantizers.int8 import narrowed
from tflite_export.plan import Operator, Plan, Tensor

# So many images take longer than to trace a graph.
TRACED_FROM = 500


class IntegerOperator(keras.layers.Layer):
    """Computes one operator of a plan: float32 tensors of int8 values in, the same out."""

    def __init__(self, operator: Operator, kernels: str, **kwargs):
        super().__init__(name=layer_name(operator.output.name), trainable=False, dtype="float32", **kwargs)
        self.operator = operator
        self.kernels = kernels

    def call(self, inputs):
        compute = tf.autograph.experimental.do_not_convert(self.operator.compute)
        return compute(tf.nest.flatten(inputs), self.kernels)


class Codes(keras.layers.Layer):
    """Unsigned input codes 0 .. 255 as the int8 values -128 .. 127 of the same numbers, in float32."""

    def call(self, inputs):
        return _centred(inputs)


def layer_name(tensor_name: str) -> str:
    """The twin's layer that computes a tensor of the plan."""
    return tensor_name.replace("/", "_")


def twin_tensors(
    plan: Plan, kernels: str = "xnnpack", images: int = 1
) -> Callable[[Sequence[np.ndarray]], dict[Tensor, np.ndarray]]:
    """A function from a batch of input codes, an array for each input, to the integers of all tensors of the plan.

    Args:
      plan: what it computes.
      kernels: the family whose arithmetic it follows, one of `KERNELS`.
      images: how many it will see; for many a graph is traced first, which takes seconds and computes faster.
    """
    tensors = [*plan.inputs, *(operator.output for operator in plan.operators)]

    def compute(codes):
        values = {x: _centred(tf.convert_to_tensor(array)) for x, array in zip(plan.inputs, codes, strict=True)}
        for operator in plan.operators:
            values[operator.output] = operator.compute([values[x] for x in operator.inputs], kernels)
        return [values[tensor] for tensor in tensors]

    call = tf.function(compute, autograph=False, reduce_retracing=True) if images > TRACED_FROM else compute

    def integers(codes):
        results = call(list(codes))
        return {tensor: narrowed(value, np.int32) for tensor, value in zip(tensors, results, strict=True)}

    return integers


def _centred(codes):
    """Unsigned 8-bit codes as float32 int8 values."""
    return tf.cast(codes, tf.float32) - 128.0


def build_twin(plan: Plan, kernels: str = "xnnpack") -> keras.Model:
    """A model from unsigned 8-bit input codes to the integers of the plan's outputs.

    Args:
      plan: what it computes.
      kernels: the family whose arithmetic it follows, one of `KERNELS`.

    Returns:
      A tf_keras model. Inputs: uint8, 0 .. 255. Outputs: float32 holding the int8 values of the file's outputs.
    """
    inputs = [keras.Input(x.shape, dtype="uint8", name=f"codes_{i}") for i, x in enumerate(plan.inputs)]
    values = {
        x: Codes(name=f"{layer_name(x.name)}_codes", dtype="float32")(codes)
        for x, codes in zip(plan.inputs, inputs, strict=True)
    }
    names: set[str] = set()
    for operator in plan.operators:
        layer = IntegerOperator(operator, kernels)
        while layer.name in names:
            layer._name += "_"
        names.add(layer.name)
        read = [values[x] for x in operator.inputs]
        values[operator.output] = layer(read if len(read) > 1 else read[0])
    outputs = [values[x] for x in plan.outputs]
    return keras.Model(inputs, outputs if len(outputs) > 1 else outputs[0], name="integer_model")
