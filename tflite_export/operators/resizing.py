"""RESIZE_BILINEAR, by the factors at which kernels interpolate alike: 1, 2, 4 and 8."""

import dataclasses

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from satkeras.quantizers.int8 import narrowed
from tflite_export.operators.arithmetic import away_from_zero
from tflite_export.plan import Constant, Operator


@dataclasses.dataclass(frozen=True, eq=False)
class ResizeBilinear(Operator):
    """RESIZE_BILINEAR on its input's grid, half_pixel_centers: between the centres of the four nearest pixels.

    By these factors a pixel's share is a multiple of 1/16, exact in the 10 or 11 bits that kernels give it. XNNPACK and
    TOSA round half up, the other kernels half away from int8's zero.
    """

    builtin = "RESIZE_BILINEAR"
    version = 3  # the first with half_pixel_centers
    runtime = "2.2.0"

    def compute(self, values, kernels):
        # Sums of 1/256: float32 holds them all.
        exact = tf.image.resize(values[0], self.output.shape[:2], tf.image.ResizeMethod.BILINEAR)
        return tf.floor(exact + 0.5) if kernels == "xnnpack" else away_from_zero(exact)

    def constants(self):
        return (Constant(f"{self.output.name}/size", narrowed(self.output.shape[:2], np.int32)),)

    def options(self):
        options = schema.ResizeBilinearOptionsT()
        options.halfPixelCenters = True
        return options
