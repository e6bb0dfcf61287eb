"""Operators of elements: ADD, MUL, MAXIMUM, MINIMUM, with a tensor or a constant."""

import dataclasses
import math

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from satkeras.quantizers.int8 import narrowed
from tflite_export.operators.activation import CODES, stored
from tflite_export.operators.arithmetic import round_once, round_twice
from tflite_export.plan import Activation, Constant, Operator

# By how much, relatively, a lowering may move an ADD's output scale so that all families of kernels agree.
LARGEST_NUDGE = 4e-5


@dataclasses.dataclass(frozen=True, eq=False)
class Add(Operator):
    """ADD of two tensors of one shape."""

    builtin = "ADD"
    activation: Activation

    def compute(self, values, kernels):
        add = self._shifted_once if kernels == "xnnpack" else self._rescaled_thrice
        centred = [tf.cast(value, tf.float64) - x.zero_point for value, x in zip(values, self.inputs, strict=True)]
        return stored(add(*centred), self.output, self.activation)

    def _shifted_once(self, left, right):
        """XNNPACK's qs8-vadd: 21-bit multipliers, one shift that rounds half up."""
        ratios = [x.scale / self.output.scale for x in self.inputs]
        shift = 20 - math.frexp(float(max(ratios)))[1] + 1
        multipliers = [float(np.rint(np.ldexp(np.float64(ratio), shift))) for ratio in ratios]
        return tf.floor((left * multipliers[0] + right * multipliers[1] + 2.0 ** (shift - 1)) * 2.0**-shift)

    def _rescaled_thrice(self, left, right):
        """gemmlowp's: both inputs, 20 bits to the left, on twice the larger scale; then their sum on the output's."""
        twice = np.float64(2 * max(x.scale for x in self.inputs))
        total = sum(
            round_twice(value * 2**20, np.float64(x.scale) / twice)
            for value, x in zip((left, right), self.inputs, strict=True)
        )
        return round_twice(total, twice / np.float64(np.float32(2**20) * self.output.scale))

    def options(self):
        options = schema.AddOptionsT()
        options.fusedActivationFunction = CODES[self.activation]
        options.potScaleInt16 = True  # the schema's own default
        return options

    def slack(self):
        """Its 21-bit multipliers, and by how much scales were moved, on the farthest values of both inputs."""
        ratios = [float(x.scale / self.output.scale) * self.output.step / x.step for x in self.inputs]
        moved = [min(abs(ratio - 1), 2 * LARGEST_NUDGE) for ratio in ratios]  # its own, and that of an ADD before it
        reach = [
            max(abs(x.lowest - x.zero_point), abs(x.highest - x.zero_point)) * x.step / self.output.step
            for x in self.inputs
        ]
        return 1e-3 + sum((move + 2.0**-20) * far for move, far in zip(moved, reach, strict=True))


@dataclasses.dataclass(frozen=True, eq=False)
class ConstantOperator(Operator):
    """An operator of every element and one constant.

    Attributes:
      integer: the constant's int8 value.
      constant_scale: float32, the size of its step.
      constant_zero_point: -128 .. 127.
      activation: what is fused into it.
    """

    integer: int
    constant_scale: np.float32
    constant_zero_point: int
    activation: Activation

    def constants(self):
        value = narrowed(np.array(self.integer), np.int8)
        scale = np.array([self.constant_scale], np.float32)
        return (Constant(f"{self.output.name}/constant", value, scale, self.constant_zero_point),)


@dataclasses.dataclass(frozen=True, eq=False)
class AddConstant(ConstantOperator):
    """ADD of a constant of whole input steps, onto the input's scale: `clamp(x - x zero + offset + zero)`, exact."""

    builtin = "ADD"

    @property
    def offset(self) -> int:
        """The constant in steps of the input."""
        return round((self.integer - self.constant_zero_point) * float(self.constant_scale / self.inputs[0].scale))

    def compute(self, values, kernels):
        return stored(values[0] - self.inputs[0].zero_point + self.offset, self.output, self.activation)

    def options(self):
        return Add.options(self)  # pyright: ignore[reportArgumentType]


@dataclasses.dataclass(frozen=True, eq=False)
class MultiplyConstant(ConstantOperator):
    """MUL by a constant: `clamp(round(m (x - x zero) c) + zero)`, `m = input scale * constant scale / output scale`."""

    builtin = "MUL"

    @property
    def version(self) -> int:  # type: ignore[override]
        """TFLite's converter writes 3 where the product of the scales reaches the output's."""
        return 2 if float(self.multiplier) < 1 else 3

    @property
    def runtime(self) -> str:  # type: ignore[override]
        """The first TensorFlow whose runtime has that version."""
        return {2: "1.14.0", 3: "1.15.0"}[self.version]

    @property
    def multiplier(self) -> np.float32:
        """float32, rounded as XNNPACK and LiteRT's reference kernel round it."""
        return self.inputs[0].scale * self.constant_scale / self.output.scale

    def compute(self, values, kernels):
        product = (values[0] - self.inputs[0].zero_point) * (self.integer - self.constant_zero_point)
        if kernels == "xnnpack":
            levels = round_once(product, self.multiplier)
        elif kernels == "reference":
            levels = round_twice(product, np.float64(self.multiplier))
        else:  # TFLite Micro multiplies the scales in float64
            scales = np.float64(self.inputs[0].scale) * np.float64(self.constant_scale)
            levels = round_twice(product, scales / np.float64(self.output.scale))
        return stored(levels, self.output, self.activation)

    def options(self):
        options = schema.MulOptionsT()
        options.fusedActivationFunction = CODES[self.activation]
        return options


@dataclasses.dataclass(frozen=True, eq=False)
class Extremum(Operator):
    """MAXIMUM or MINIMUM of every element and one integer, all on one scale.

    Attributes:
      limit: the int8 value that it is compared with.
    """

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
