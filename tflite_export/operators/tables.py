"""Functions of one tensor on a fixed output grid: SOFTMAX."""

import dataclasses

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from tflite_export.operators import fixed_point
from tflite_export.plan import Operator


@dataclasses.dataclass(frozen=True, eq=False)
class Softmax(Operator):
    """SOFTMAX over the last axis; its output's scale is 1/256 and its zero point -128.

    LiteRT computes it in float32: a table of exponentials, summed from left to right. The reference kernels and TFLite
    Micro compute it in fixed point, with a sum that overflows, and ends the process, where it reaches 512.
    """

    builtin = "SOFTMAX"
    runs_in_xnnpack = False

    def compute(self, values, kernels):
        return self._in_float(values[0]) if kernels == "xnnpack" else self._in_fixed_point(values[0])

    def _in_float(self, x):
        scale = self.inputs[0].scale
        table = np.exp((-scale * np.arange(256, dtype=np.float32)).astype(np.float64)).astype(np.float32)
        below = tf.cast(tf.reduce_max(x, -1, keepdims=True) - x, tf.int32)
        powers = tf.gather(tf.constant(table), below)
        # cumsum adds in order; reduce_sum adds pairwise, which rounds differently.
        total = tf.cumsum(powers, -1)[..., -1:]
        inverse = 1.0 / (total * self.output.scale)
        return tf.minimum(tf.floor(powers * inverse + 0.5) + self.output.zero_point, 127.0)

    def _in_fixed_point(self, x):
        def compute(integers):
            return fixed_point.softmax(integers.astype(np.int64), self.inputs[0].scale).astype(np.float32)

        result = tf.numpy_function(compute, [x], tf.float32)
        result.set_shape(x.shape)
        return result

    def warnings(self):
        classes = self.output.shape[-1]
        if classes < fixed_point.LARGEST_SUM:
            return ()
        return (
            f"{self.output.name}: a SOFTMAX of {classes} values ends the process of LiteRT's reference kernels and of "
            f"TFLite Micro where {fixed_point.LARGEST_SUM} of them are nearly equal; a model that ends with its logits "
            "does not",
        )

    def slack(self):
        return 2e-2  # its sum is float32, term by term

    def options(self):
        options = schema.SoftmaxOptionsT()
        options.beta = 1.0
        return options
