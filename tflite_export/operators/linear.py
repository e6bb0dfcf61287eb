"""Weighted sums: CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED."""

import abc
import dataclasses

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from tflite_export.operators.activation import CODES, stored
from tflite_export.operators.arithmetic import (
    EXACT_IN_FLOAT32,
    away_from_zero,
    opaque,
    quantize_multiplier,
    round_once,
    round_twice,
)
from tflite_export.operators.window import Window
from tflite_export.plan import Activation, Constant, Operator


@dataclasses.dataclass(frozen=True, eq=False)
class Origin:
    """What a weighted sum is in the quantized model, in real numbers.

    Attributes:
      call: the call whose result it is: a linear layer's, or its last batch norm's; None if there is none.
      unit: float64 (channels,), the size of a step of the int8 weights.
      bias: float64 (channels,), the batch norms' and the channel scale's included.
      factor: float64 (channels,), what a channel scale behind the call multiplies by; 1 where there is none.
      shift: float64 (channels,), by how much it moves the bias.
      even: the channels whose weights were made even.
    """

    call: str | None
    unit: np.ndarray
    bias: np.ndarray
    factor: np.ndarray
    shift: np.ndarray
    even: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class LinearOperator(Operator):
    """A weighted sum with its requantization: `clamp(round(m (sum w (x - zero) + b)) + zero)`.

    `m` is `input scale * weight_scale / output scale`, one for each output channel.

    Attributes:
      weights: int8; the shape is the subclass's, output channels last.
      weight_scale: float32 (channels,).
      bias: int32 (channels,), in steps of `input scale * weight_scale`.
      activation: what is fused into it.
      name: of the Keras layer whose kernel it holds.
      bits: 4 or 2 where the file packs the weights.
      constant_channels: channels whose weights are stored as zeros, since they cannot move the output's level.
      saturating_channels: channels whose every sum but 0 is clipped, and whose scale is smaller than the model's.
      origin: what it is in the quantized model.
    """

    weights: np.ndarray
    weight_scale: np.ndarray
    bias: np.ndarray
    activation: Activation
    name: str = dataclasses.field(kw_only=True, default="linear")
    bits: int = dataclasses.field(kw_only=True, default=8)
    constant_channels: tuple[int, ...] = dataclasses.field(kw_only=True, default=())
    saturating_channels: tuple[int, ...] = dataclasses.field(kw_only=True, default=())
    origin: Origin | None = dataclasses.field(kw_only=True, default=None)

    @property
    def weight_bytes(self) -> int:
        return -(-self.weights.size * self.bits // 8)

    @property
    def bias_scale(self) -> np.ndarray:
        """float32 (channels,): the size of a step of the bias."""
        return self.inputs[0].scale * self.weight_scale

    @property
    def multiplier(self) -> np.ndarray:
        """float32 (channels,), rounded as XNNPACK rounds it."""
        return self.inputs[0].scale * self.weight_scale / self.output.scale

    @property
    def exact_multiplier(self) -> np.ndarray:
        """float64 (channels,), as the kernels that round twice compute it."""
        return np.float64(self.inputs[0].scale) * self.weight_scale.astype(np.float64) / np.float64(self.output.scale)

    @property
    def largest_sum(self) -> np.ndarray:
        """int64 (channels,): what `bounds` may reach; beyond it a kernel wraps.

        Kernels that round twice first shift a sum to the left, in int32, where its multiplier is 1 or more.
        """
        nearly_one_too = self.exact_multiplier * (1 + 2.0**-22)  # a product of scales in float32 may round up to it
        return np.int64(2**31 - 1) >> np.maximum(quantize_multiplier(nearly_one_too)[1], 0)

    def on_step(self, output, factor):
        return dataclasses.replace(self, output=output, weight_scale=(self.weight_scale * factor).astype(np.float32))

    def bounds(self) -> np.ndarray:
        """int64 (channels,): what no partial sum's magnitude exceeds, the bias included, for any input.

        Padding adds zeros, so each term reaches from its lowest to its highest or zero.
        """
        (x,) = self.inputs
        weights = self.weights.reshape(-1, len(self.bias))
        positive, negative = (part(weights, 0).sum(0, dtype=np.int64) for part in (np.maximum, np.minimum))
        lowest, highest = min(x.lowest - x.zero_point, 0), max(x.highest - x.zero_point, 0)
        above, below = positive * highest + negative * lowest, positive * lowest + negative * highest
        return np.maximum(above, -below) + np.abs(self.bias.astype(np.int64))

    def slack(self):
        """A float32 sum errs by some roundings of its largest term; so does a batch norm by those of its offset."""
        multiplier = np.abs(self.multiplier.astype(np.float64))
        bias = 0.5 * multiplier.max() if self.bits < 8 else 0.0  # rounded to the steps of unspread weights
        return float(min(0.25, 1e-3 + 4 * 2.0**-24 * (self.bounds() * multiplier).max(initial=0)) + bias)

    def compute(self, values, kernels):
        dtype = self.exact_dtype
        x = tf.cast(values[0] - self.inputs[0].zero_point, dtype)
        total = self.weighted_sum(x, opaque(self.weights, dtype)) + opaque(self.bias, dtype)
        return stored(self.rounded(total, kernels), self.output, self.activation)

    @property
    def exact_dtype(self) -> tf.DType:
        """In which TensorFlow computes the sums without an error."""
        return tf.float32 if self.bounds().max() < EXACT_IN_FLOAT32 else tf.float64

    def rounded(self, total, kernels: str):
        """Output steps of an exact sum."""
        if kernels == "xnnpack":
            return round_once(total, self.multiplier)
        return round_twice(total, self.exact_multiplier)

    @abc.abstractmethod
    def weighted_sum(self, x, weights):
        """The exact sums without the bias; `x` is centred, both are floats of one dtype."""

    @abc.abstractmethod
    def stored_weights(self) -> tuple[np.ndarray, int]:
        """The weights in the file's layout, and the axis of their output channels there."""

    def constants(self):
        values, axis = self.stored_weights()
        kernel = Constant(f"{self.name}/kernel", values, self.weight_scale, axis=axis, bits=self.bits)
        return kernel, Constant(f"{self.name}/bias", self.bias, self.bias_scale)


@dataclasses.dataclass(frozen=True, eq=False)
class SlidingSum(LinearOperator):
    """What the convolutions have in common.

    Attributes:
      window: where the kernel lies.
    """

    version = 3
    window: Window = Window()

    @property
    def exact_dtype(self):
        # With one channel, unequal strides and an output of width 1, oneDNN's float32 convolution mixes up its rows.
        if self.inputs[0].shape[-1] == 1 and not self.window.has_equal_strides:
            return tf.float64
        return super().exact_dtype

    def options(self):
        options = self._new_options()
        options.fusedActivationFunction = CODES[self.activation]
        options.padding = self.window.padding_code
        options.strideH, options.strideW = self.window.strides
        options.dilationHFactor, options.dilationWFactor = self.window.dilations
        return options

    @abc.abstractmethod
    def _new_options(self):
        """Its options, in which only what the window says is not set yet."""


@dataclasses.dataclass(frozen=True, eq=False)
class Convolution(SlidingSum):
    """CONV_2D; weights (height, width, in, out)."""

    builtin = "CONV_2D"

    def weighted_sum(self, x, weights):
        window = self.window
        return tf.nn.conv2d(x, weights, window.strides, window.padding, dilations=window.dilations)

    def stored_weights(self):
        return self.weights.transpose(3, 0, 1, 2), 0

    def _new_options(self):
        return schema.Conv2DOptionsT()


@dataclasses.dataclass(frozen=True, eq=False)
class DepthwiseConvolution(SlidingSum):
    """DEPTHWISE_CONV_2D with multiplier 1; weights (height, width, channels)."""

    builtin = "DEPTHWISE_CONV_2D"

    def weighted_sum(self, x, weights):
        window, strides = self.window, (1, *self.window.strides, 1)
        if window.has_equal_strides:
            return tf.nn.depthwise_conv2d(x, weights[..., None], strides, window.padding, dilations=window.dilations)
        # TensorFlow's own kernel takes equal strides alone: as a convolution, each channel with zeros for the others.
        diagonal = weights[..., None] * tf.eye(self.weights.shape[-1], dtype=weights.dtype)
        return tf.nn.conv2d(x, diagonal, window.strides, window.padding, dilations=window.dilations)

    def stored_weights(self):
        return self.weights[None], 3

    def _new_options(self):
        options = schema.DepthwiseConv2DOptionsT()
        options.depthMultiplier = 1
        return options


@dataclasses.dataclass(frozen=True, eq=False)
class FullyConnected(LinearOperator):
    """FULLY_CONNECTED; weights (in, out).

    With int8 weights it has one weight scale for all outputs: runtimes up to TFLite 2.9 compute another wrongly. With
    packed weights it has one for each, and stands for a 1x1 convolution too.
    """

    builtin = "FULLY_CONNECTED"

    @property
    def version(self) -> int:  # type: ignore[override]
        """4 for int8 weights; 10 and 14 for those of 4 and 2 bits."""
        return {8: 4, 4: 10, 2: 14}[self.bits]

    @property
    def runtime(self) -> str:  # type: ignore[override]
        """The first TensorFlow whose runtime takes weights of this width."""
        return {8: "1.14.0", 4: "2.11.0", 2: "2.21.0"}[self.bits]

    @property
    def largest_sum(self) -> np.ndarray:
        """As for all sums; XNNPACK adds up 16 times the products of 4-bit weights."""
        return np.minimum(super().largest_sum, 2**27 - 1) if self.bits == 4 else super().largest_sum

    @property
    def has_one_scale(self) -> bool:
        """Whether one weight scale serves all outputs."""
        return self.bits == 8

    def weighted_sum(self, x, weights):
        return tf.tensordot(x, weights, 1)

    def rounded(self, total, kernels):
        if kernels == "reference":  # one rounding of a float64 product
            product = tf.cast(total, tf.float64) * opaque(self.exact_multiplier, tf.float64)
            return tf.cast(away_from_zero(product), tf.float32)
        if kernels == "tflm" and self.has_one_scale:
            return round_twice(total, self.bias_scale.astype(np.float64) / np.float64(self.output.scale))
        return super().rounded(total, kernels)

    def stored_weights(self):
        return self.weights.T, 0

    def constants(self):
        kernel, bias = super().constants()
        if not self.has_one_scale:
            return kernel, bias
        return tuple(dataclasses.replace(one, scale=one.scale[:1]) for one in (kernel, bias))

    def options(self):
        options = schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = CODES[self.activation]
        options.keepNumDims = len(self.output.shape) > 1
        return options
