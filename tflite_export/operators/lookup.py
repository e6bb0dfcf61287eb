"""Any function of every element, as a table of 256 integers that all runtimes look up alike."""

import dataclasses

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from satkeras.quantizers.int8 import narrowed
from tflite_export.plan import Constant, Operator


@dataclasses.dataclass(frozen=True, eq=False)
class Lookup(Operator):
    """GATHER from a table, at the input's integers: CAST makes them int32, ADD of 128 makes them places.

    Attributes:
      table: int8 (256,), the results for -128 .. 127.
    """

    builtin = "GATHER"
    runs_in_xnnpack = False
    elementwise = True
    file_operators = 3
    table: np.ndarray

    def compute(self, values, kernels):
        return tf.gather(tf.constant(self.table, tf.float32), tf.cast(values[0], tf.int32) + 128)

    def on_step(self, output, factor):
        return dataclasses.replace(self, output=output)

    def constants(self):
        scale = np.array([self.output.scale], np.float32)
        table = Constant(f"{self.output.name}/table", narrowed(self.table, np.int8), scale, self.output.zero_point)
        return table, Constant(f"{self.output.name}/middle", narrowed(128, np.int32))

    def options(self):
        options = schema.GatherOptionsT()
        options.axis = 0
        return options

    def write(self, file):
        cast, add = schema.CastOptionsT(), schema.AddOptionsT()
        cast.inDataType, cast.outDataType = schema.TensorType.INT8, schema.TensorType.INT32
        (x,), shape, name = self.inputs, self.output.shape, self.output.name
        table, middle = (file.constant(constant) for constant in self.constants())
        integers, places = (file.whole_numbers(f"{name}/{which}", shape) for which in ("integers", "places"))
        file.part("CAST", 1, [file.activation(x)], integers, cast)
        file.part("ADD", 1, [integers, middle], places, add)
        file.operator(self, [table, places], file.activation(self.output))
