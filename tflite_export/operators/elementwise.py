"""Arithmetic of elements: ADD, SUB, MUL, with a tensor or a constant."""

import abc
import dataclasses
import math
from typing import ClassVar

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
class Sum(Operator):
    """What ADD and SUB have in common; XNNPACK takes ratios of scales 2^-10 .. 2^8."""

    elementwise = True
    sign: ClassVar[int]  # of the second input
    activation: Activation

    def compute(self, values, kernels):
        left, right = (tf.cast(one, tf.float64) - x.zero_point for one, x in zip(values, self.inputs, strict=True))
        if kernels == "xnnpack":
            levels = self._shifted_once(left, right)
        else:
            levels = self._rescaled_thrice(left, right, kernels)
        return stored(levels, self.output, self.activation)

    def _shifted_once(self, left, right):
        """XNNPACK's qs8-vadd: 21-bit multipliers, one shift that rounds half up."""
        ratios, shift = self._ratios, self._shift
        multipliers = [float(np.rint(np.ldexp(np.float64(ratio), shift))) for ratio in ratios]
        total = left * multipliers[0] + self.sign * right * multipliers[1]
        return tf.floor((total + 2.0 ** (shift - 1)) * 2.0**-shift)

    @property
    def _ratios(self) -> list[np.float32]:
        return [x.scale / self.output.scale for x in self.inputs]

    @property
    def _shift(self) -> int:
        """By how many bits XNNPACK's multipliers are shifted: the larger one has 21."""
        return 20 - math.frexp(float(max(self._ratios)))[1] + 1

    def _rescaled_thrice(self, left, right, kernels: str):
        """gemmlowp's: both inputs, 20 bits to the left, on twice the larger scale; then their sum on the output's."""
        dtype = self._ratio_dtype(kernels)
        twice = dtype(2 * max(x.scale for x in self.inputs))
        left, right = (
            round_twice(value * 2**20, np.float64(dtype(x.scale) / twice))
            for value, x in zip((left, right), self.inputs, strict=True)
        )
        total = left + self.sign * right
        return round_twice(total, np.float64(twice / dtype(np.float32(2**20) * self.output.scale)))

    def _ratio_dtype(self, kernels: str) -> type:
        """In what a family divides scales."""
        return np.float64

    @abc.abstractmethod
    def options(self):
        """Their schemas differ."""

    def slack(self):
        """Its multipliers' last bit, and by how much scales were moved, on the farthest codes of both inputs."""
        total = 1e-3
        for x, ratio in zip(self.inputs, self._ratios, strict=True):
            moved = min(abs(float(ratio) * self.output.step / x.step - 1), 2 * LARGEST_NUDGE)  # by an ADD before, too
            reach = max(abs(x.lowest - x.zero_point), abs(x.highest - x.zero_point))
            total += reach * (moved * x.step / self.output.step + 2.0 ** -(self._shift + 1))
        return total


@dataclasses.dataclass(frozen=True, eq=False)
class Add(Sum):
    """ADD of two tensors of one shape, or of one and another that is broadcast."""

    builtin = "ADD"
    sign = 1

    def options(self):
        return _add_options(self.activation)


@dataclasses.dataclass(frozen=True, eq=False)
class Subtract(Sum):
    """SUB of two tensors of one shape, or of one and another that is broadcast."""

    builtin = "SUB"
    sign = -1

    def _ratio_dtype(self, kernels):
        return np.float32 if kernels == "tflm" else np.float64

    def options(self):
        options = schema.SubOptionsT()
        options.fusedActivationFunction = CODES[self.activation]
        options.potScaleInt16 = True
        return options


def _add_options(activation: Activation):
    options = schema.AddOptionsT()
    options.fusedActivationFunction = CODES[activation]
    options.potScaleInt16 = True  # the schema's own default
    return options


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
    same_everywhere = True
    elementwise = True

    @property
    def offset(self) -> int:
        """The constant in steps of the input."""
        return round((self.integer - self.constant_zero_point) * float(self.constant_scale / self.inputs[0].scale))

    def compute(self, values, kernels):
        return stored(values[0] - self.inputs[0].zero_point + self.offset, self.output, self.activation)

    def options(self):
        return _add_options(self.activation)


class Product(Operator):
    """What MUL of two tensors and of a tensor and a constant have in common: `clamp(round(m a b) + zero)`.

    `m` is the product of their scales over the output's; XNNPACK takes 2^-16 .. 2^8.
    """

    builtin = "MUL"
    elementwise = True
    activation: Activation

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
        one, other = self.scales
        return one * other / self.output.scale

    @property
    @abc.abstractmethod
    def scales(self) -> tuple[np.float32, np.float32]:
        """The factors'."""

    def levels(self, product, kernels: str):
        """Output steps of a product of centred integers."""
        if kernels == "xnnpack":
            return round_once(product, self.multiplier)
        if kernels == "reference":
            return round_twice(product, np.float64(self.multiplier))
        one, other = self.scales  # which TFLite Micro multiplies in float64
        return round_twice(product, np.float64(one) * np.float64(other) / np.float64(self.output.scale))

    def options(self):
        options = schema.MulOptionsT()
        options.fusedActivationFunction = CODES[self.activation]
        return options


@dataclasses.dataclass(frozen=True, eq=False)
class Multiply(Product):
    """MUL of two tensors of one shape, or of one and another that is broadcast."""

    activation: Activation

    @property
    def scales(self):
        one, other = self.inputs
        return one.scale, other.scale

    def slack(self):
        """By how much scales were moved by ADDs, on the farthest codes of both inputs."""
        moved = sum(abs(float(x.scale) / x.step - 1) for x in self.inputs)
        reach = (max(abs(x.lowest - x.zero_point), abs(x.highest - x.zero_point)) for x in self.inputs)
        return 1e-3 + moved * min(float(self.multiplier) * math.prod(reach), 255.0)

    def compute(self, values, kernels):
        if kernels == "xnnpack" and self.inputs[0] is self.inputs[1]:
            return stored(tf.gather(self._squares(), tf.cast(values[0], tf.int32) + 128), self.output, self.activation)
        left, right = (value - x.zero_point for value, x in zip(values, self.inputs, strict=True))
        return stored(self.levels(left * right, kernels), self.output, self.activation)

    def _squares(self) -> np.ndarray:
        """Output steps for -128 .. 127: XNNPACK squares by a table, and adds the zero point before it rounds."""
        (x, _), zero = self.inputs, np.float32(self.output.zero_point)
        reals = x.scale * (np.arange(-128, 128) - x.zero_point).astype(np.float32)
        return np.rint(reals * reals * (np.float32(1) / self.output.scale) + zero) - zero


@dataclasses.dataclass(frozen=True, eq=False)
class MultiplyConstant(Product, ConstantOperator):
    """MUL by a constant."""

    @property
    def scales(self):
        return self.inputs[0].scale, self.constant_scale

    def on_step(self, output, factor):
        return dataclasses.replace(self, output=output, constant_scale=np.float32(self.constant_scale * factor))

    def compute(self, values, kernels):
        product = (values[0] - self.inputs[0].zero_point) * (self.integer - self.constant_zero_point)
        return stored(self.levels(product, kernels), self.output, self.activation)
