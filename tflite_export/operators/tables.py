"""Functions of one tensor: SOFTMAX, L2_NORMALIZATION, and those of every element by itself, which have 256 cases."""

import abc
import dataclasses

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from satkeras.quantizers.int8 import narrowed
from tflite_export.operators import fixed_point
from tflite_export.operators.activation import stored
from tflite_export.operators.arithmetic import quantize_multiplier, round_twice
from tflite_export.operators.lookup import Lookup
from tflite_export.plan import Constant, Operator


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


@dataclasses.dataclass(frozen=True, eq=False)
class L2Normalization(Operator):
    """L2_NORMALIZATION over the last axis, in fixed point by all kernels.

    Its output's scale is 1/128 and its zero point 0.
    """

    builtin = "L2_NORMALIZATION"
    same_everywhere = True
    version = 2
    runtime = "1.14.0"
    runs_in_xnnpack = False

    def compute(self, values, kernels):
        def compute(integers):
            centred = integers.astype(np.int64) - self.inputs[0].zero_point
            return fixed_point.unit_vectors(centred).astype(np.float32)

        result = tf.numpy_function(compute, values, tf.float32)
        result.set_shape(values[0].shape)
        return result

    def slack(self):
        return 1e-3

    def options(self):
        return schema.L2NormOptionsT()


class Table(Operator):
    """A function of every element: a table of 256 integers for each family of kernels."""

    elementwise = True

    def compute(self, values, kernels):
        return tf.gather(tf.constant(self.table(kernels), tf.float32), tf.cast(values[0], tf.int32) + 128)

    def on_step(self, output, factor):
        table = narrowed(self.table("xnnpack"), np.int8)
        return Lookup(self.inputs, output, table, layers=self.layers, sources=self.sources)

    @abc.abstractmethod
    def table(self, kernels: str) -> np.ndarray:
        """(256,): the int8 results for -128 .. 127."""

    @property
    def centred(self) -> np.ndarray:
        """int64 (256,): -128 .. 127, from the input's zero point."""
        return np.arange(-128, 128) - self.inputs[0].zero_point


class FloatTable(Table):
    """A table that LiteRT computes in float32, on a fixed output grid; TFLite Micro computes in fixed point.

    XNNPACK adds the zero point before it rounds, ties to even; LiteRT's own kernels afterwards, ties away from zero.
    """

    def table(self, kernels):
        if kernels == "tflm":
            return self._in_fixed_point(self.centred, self.inputs[0].scale)
        reals = self.inputs[0].scale * self.centred.astype(np.float32)
        with np.errstate(over="ignore"):  # exp(1000) is infinite, as it is meant to be
            steps = self._in_float(reals.astype(np.float64), kernels) * (np.float32(1) / self.output.scale)
        zero = self.output.zero_point
        if kernels == "xnnpack":
            return np.clip(np.rint(steps + np.float32(zero)), -128, 127)
        return np.clip(np.trunc(steps + np.copysign(0.5, steps.astype(np.float64))) + zero, -128, 127)

    def slack(self):
        return 5e-3  # where an ADD before it has moved its input's scale

    @abc.abstractmethod
    def _in_float(self, reals: np.ndarray, kernels: str) -> np.ndarray:
        """float32: the function of float64 numbers, rounded where a family of kernels rounds."""

    @abc.abstractmethod
    def _in_fixed_point(self, centred: np.ndarray, scale: np.float32) -> np.ndarray:
        """int8 values of the function of `centred * scale`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Logistic(FloatTable):
    """LOGISTIC; its output's scale is 1/256 and its zero point -128."""

    builtin = "LOGISTIC"

    def _in_float(self, reals, kernels):
        if kernels != "xnnpack":
            return np.float32(1) / (np.float32(1) + np.exp(-reals).astype(np.float32))
        power = np.exp(np.clip(reals, -700, 700))
        return np.where(reals > 100, 1, np.where(reals < -100, 0, power / (1 + power))).astype(np.float32)

    def _in_fixed_point(self, centred, scale):
        return fixed_point.logistic(centred, scale)


@dataclasses.dataclass(frozen=True, eq=False)
class Tanh(FloatTable):
    """TANH; its output's scale is 1/128 and its zero point 0."""

    builtin = "TANH"

    def _in_float(self, reals, kernels):
        return np.tanh(reals).astype(np.float32)

    def _in_fixed_point(self, centred, scale):
        return fixed_point.tanh(centred, scale)


@dataclasses.dataclass(frozen=True, eq=False)
class HardSwish(Table):
    """HARD_SWISH, in 16 bits by all kernels on x86.

    Its output's scale must lie above 1/128 of its input's, and not above 512 times, where kernels shift too far.
    """

    builtin = "HARD_SWISH"
    version = 1
    runtime = "1.15.0"
    runs_in_xnnpack = False

    def table(self, kernels):
        levels = fixed_point.hard_swish(self.centred, self.inputs[0].scale, self.output.scale)
        return np.clip(levels + self.output.zero_point, -128, 127)


@dataclasses.dataclass(frozen=True, eq=False)
class LeakyRelu(Table):
    """LEAKY_RELU, on its input's grid.

    Attributes:
      slope: of negative values, 1/256 .. 1; XNNPACK rounds it to 1/256.
    """

    builtin = "LEAKY_RELU"
    version = 2
    runtime = "1.13.1"
    slope: float

    def table(self, kernels):
        x = self.centred
        if kernels == "xnnpack":
            below = (x * round(self.slope * 256) + 128) >> 8
        else:
            mantissa, exponent = quantize_multiplier(self._multiplier(np.float64 if kernels == "tflm" else np.float32))
            below = fixed_point.high_product(x << np.maximum(exponent, 0), mantissa)
            below = fixed_point.divide_by_power(below, np.maximum(-exponent, 0))
        return np.clip(np.where(x >= 0, x, below) + self.inputs[0].zero_point, -128, 127)

    def _multiplier(self, dtype: type) -> np.float64:
        """Not quite the slope: a kernel multiplies it by one scale and divides it by the other."""
        return np.float64(dtype(self.inputs[0].scale) * dtype(self.slope) / dtype(self.output.scale))

    def options(self):
        options = schema.LeakyReluOptionsT()
        options.alpha = self.slope
        return options


@dataclasses.dataclass(frozen=True, eq=False)
class PRelu(Operator):
    """PRELU: the input where it is 0 or more, else its product with `alpha`; both rounded twice, by all kernels.

    Attributes:
      alpha: int8, of a shape that its output's is broadcast from, such as (1, 1, channels).
      alpha_scale: float32, the size of its steps.
      alpha_zero_point: -128 .. 127.
    """

    builtin = "PRELU"
    version = 1
    runtime = "1.8.0"
    runs_in_xnnpack = False
    alpha: np.ndarray
    alpha_scale: np.float32
    alpha_zero_point: int

    def compute(self, values, kernels):
        centred = values[0] - self.inputs[0].zero_point
        slope = self.alpha.astype(np.float32) - self.alpha_zero_point
        above, below = self._multipliers(kernels)
        levels = tf.where(centred >= 0, round_twice(centred, above), round_twice(centred * slope, below))
        return stored(levels, self.output, "none")

    def slack(self):
        """What is shifted to the right was rounded before; and an ADD may have moved the input's scale."""
        (x,), (_, exponents) = self.inputs, quantize_multiplier(self._multipliers("reference"))
        moved = 255 * abs(float(x.scale) / x.step - 1)
        return 1e-3 + moved + max((2.0 ** (int(exponent) - 1) for exponent in exponents if exponent < 0), default=0.0)

    def _multipliers(self, kernels: str) -> tuple[np.float64, np.float64]:
        """Of the input's steps and of products: LiteRT divides scales in float32, TFLite Micro in float64."""
        dtype = np.float64 if kernels == "tflm" else np.float32
        read, alpha, written = (dtype(scale) for scale in (self.inputs[0].scale, self.alpha_scale, self.output.scale))
        return np.float64(read / written), np.float64(read * alpha / written)

    def constants(self):
        scale = np.array([self.alpha_scale], np.float32)
        values = narrowed(self.alpha, np.int8)
        return (Constant(f"{self.output.name}/alpha", values, scale, self.alpha_zero_point),)
