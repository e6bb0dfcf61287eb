"""TRANSPOSE_CONV: the gradient of a convolution as a layer."""

import dataclasses

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from satkeras.quantizers.int8 import narrowed
from tflite_export.operators.linear import SlidingSum
from tflite_export.plan import Constant


@dataclasses.dataclass(frozen=True, eq=False)
class TransposeConvolution(SlidingSum):
    """TRANSPOSE_CONV with a bias; weights (height, width, in, out), at least as large as the strides.

    Nothing is fused into it: version 3 knows no activation.
    """

    builtin = "TRANSPOSE_CONV"
    runtime = "2.3.0"

    def weighted_sum(self, x, weights):
        shape = (tf.shape(x)[0], *self.output.shape)
        kernel = tf.transpose(weights, (0, 1, 3, 2))
        return tf.nn.conv2d_transpose(x, kernel, shape, self.window.strides, self.window.padding)

    def stored_weights(self):
        return self.weights.transpose(3, 0, 1, 2), 0

    def options(self):
        options = self._new_options()
        options.padding = self.window.padding_code
        options.strideH, options.strideW = self.window.strides
        return options

    def write(self, file):
        kernel, bias = (file.constant(constant) for constant in self.constants())
        shape = file.constant(Constant(f"{self.output.name}/shape", narrowed((1, *self.output.shape), np.int32)))
        (x,) = self.inputs
        file.operator(self, [shape, kernel, file.activation(x), bias], file.activation(self.output))

    def _new_options(self):
        return schema.TransposeConvOptionsT()
