"""What is fused into an operator: the clamps of its output."""

import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from tflite_export.plan import Activation, Tensor

CODES = {
    "none": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu_n1_to_1": schema.ActivationFunctionType.RELU_N1_TO_1,
}


def stored(levels, output: Tensor, activation: Activation):
    """Adds the output's zero point and clamps to what the fused activation and int8 let through.

    Args:
      levels: of any dtype, whole output steps from zero.
      output: where they are stored.
      activation: what is fused.
    """
    lowest, highest = -128, 127
    if activation == "relu":
        lowest = output.zero_point
    elif activation == "relu_n1_to_1":
        lowest, highest = output.lowest, output.highest
    return tf.cast(tf.clip_by_value(levels + output.zero_point, lowest, highest), tf.float32)
