"""Operators that move values, on their input's grid: RESHAPE, PAD, CONCATENATION."""

import dataclasses

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from satkeras.quantizers.int8 import narrowed
from tflite_export.plan import Constant, Operator


@dataclasses.dataclass(frozen=True, eq=False)
class Reshape(Operator):
    """RESHAPE."""

    builtin = "RESHAPE"
    version = 1
    runtime = "1.5.0"

    def compute(self, values, kernels):
        return tf.reshape(values[0], (-1, *self.output.shape))

    def constants(self):
        return (Constant(f"{self.output.name}/shape", narrowed((1, *self.output.shape), np.int32)),)

    def options(self):
        options = schema.ReshapeOptionsT()
        options.newShape = [1, *self.output.shape]
        return options


@dataclasses.dataclass(frozen=True, eq=False)
class Pad(Operator):
    """PAD with zeros, that is with the zero point.

    Attributes:
      paddings: before and after, for height and width.
    """

    builtin = "PAD"
    paddings: tuple[tuple[int, int], tuple[int, int]]

    def compute(self, values, kernels):
        return tf.pad(values[0], ((0, 0), *self.paddings, (0, 0)), constant_values=self.output.zero_point)

    def constants(self):
        paddings = narrowed([(0, 0), *self.paddings, (0, 0)], np.int32)
        return (Constant(f"{self.output.name}/paddings", paddings),)

    def options(self):
        return schema.PadOptionsT()


@dataclasses.dataclass(frozen=True, eq=False)
class Concatenation(Operator):
    """CONCATENATION of two or more tensors on one grid.

    Attributes:
      axis: the axis that they are joined along, the batch's being 0.
    """

    builtin = "CONCATENATION"
    axis: int

    @property
    def runs_in_xnnpack(self) -> bool:  # type: ignore[override]
        """XNNPACK joins up to five tensors."""
        return len(self.inputs) <= 5

    def compute(self, values, kernels):
        return tf.concat(values, self.axis)

    def options(self):
        options = schema.ConcatenationOptionsT()
        options.axis = self.axis
        return options
