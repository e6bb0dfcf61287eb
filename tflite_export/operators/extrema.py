"""MAXIMUM and MINIMUM, of a tensor and an integer or of two tensors, all on one grid."""

import dataclasses

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from satkeras.quantizers.int8 import narrowed
from tflite_export.plan import Constant, Operator


@dataclasses.dataclass(frozen=True, eq=False)
class Extremum(Operator):
    """MAXIMUM or MINIMUM of every element and one integer, all on one scale.

    Attributes:
      limit: the int8 value that it is compared with.
    """

    same_everywhere = True
    elementwise = True
    runs_in_xnnpack = False
    limit: int

    def constants(self):
        value = narrowed(np.array(self.limit), np.int8)
        scale = np.array([self.output.scale], np.float32)
        return (Constant(f"{self.output.name}/limit", value, scale, self.output.zero_point),)

    def options(self):
        return schema.MaximumMinimumOptionsT()


@dataclasses.dataclass(frozen=True, eq=False)
class Maximum(Extremum):
    """MAXIMUM: nothing below the limit."""

    builtin = "MAXIMUM"

    def compute(self, values, kernels):
        return tf.maximum(values[0], float(self.limit))


@dataclasses.dataclass(frozen=True, eq=False)
class Minimum(Extremum):
    """MINIMUM: nothing above the limit."""

    builtin = "MINIMUM"

    def compute(self, values, kernels):
        return tf.minimum(values[0], float(self.limit))


@dataclasses.dataclass(frozen=True, eq=False)
class MaximumOfTwo(Operator):
    """MAXIMUM of two tensors on one grid."""

    builtin = "MAXIMUM"
    same_everywhere = True
    elementwise = True
    runs_in_xnnpack = False

    def compute(self, values, kernels):
        return tf.maximum(*values)

    def options(self):
        return schema.MaximumMinimumOptionsT()


@dataclasses.dataclass(frozen=True, eq=False)
class MinimumOfTwo(Operator):
    """MINIMUM of two tensors on one grid."""

    builtin = "MINIMUM"
    same_everywhere = True
    elementwise = True
    runs_in_xnnpack = False

    def compute(self, values, kernels):
        return tf.minimum(*values)

    def options(self):
        return schema.MaximumMinimumOptionsT()
