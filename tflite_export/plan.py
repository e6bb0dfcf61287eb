"""The export plan: every tensor and operator of the file, in integers, before there is a file.

A plan is plain frozen data. `emit` writes it for the converter, `check` compares the file with it, `twin` computes it.
"""

import dataclasses
import math
from typing import ClassVar, Literal

import numpy as np

Activation = Literal["none", "relu", "relu_n1_to_1"]


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """An int8 activation: `real = scale * (integer - zero_point)`.

    Attributes:
      name: unique in the plan.
      shape: without the batch axis.
      scale: float32, the size of a step in the file.
      zero_point: -128 .. 127.
      step: the size of a step in the training model. It differs from `scale` for signed tensors below 8 bits, which
        the file holds divided by their clip value, so that a fused RELU_N1_TO_1 clips them at both ends; the
        weights that read them make up for it.
      lowest: the smallest integer that occurs; the largest is `highest`.
      highest: see `lowest`.
      layer: the layer of the quantized model whose output this is, None if the model does not have this tensor.
    """

    name: str
    shape: tuple[int, ...]
    scale: np.float32
    zero_point: int
    step: float
    lowest: int = -128
    highest: int = 127
    layer: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Operator:
    """One operator of the file.

    Attributes:
      inputs: the activations it reads.
      output: the activation it writes.
      layers: the layers of the quantized model that it computes, in order, its output's quantizer last.
    """

    builtin: ClassVar[str]
    newest_version: ClassVar[int]

    inputs: tuple[Tensor, ...]
    output: Tensor
    layers: tuple[str, ...] = dataclasses.field(kw_only=True, default=())


@dataclasses.dataclass(frozen=True, eq=False)
class LinearOperator(Operator):
    """A weighted sum with its requantization: `clamp(rint(m (sum w (x - zero) + b)) + zero)`.

    `m` is `input scale * weight_scale / output scale`, one for each output channel.

    Attributes:
      weights: int8; the shape is the subclass's.
      weight_scale: float32 (channels,).
      bias: int32 (channels,), in steps of `input scale * weight_scale`.
      activation: what is fused into it.
    """

    weights: np.ndarray
    weight_scale: np.ndarray
    bias: np.ndarray
    activation: Activation

    @property
    def bias_scale(self) -> np.ndarray:
        """float32 (channels,): the size of a step of the bias."""
        return self.inputs[0].scale * self.weight_scale

    @property
    def multiplier(self) -> np.ndarray:
        """float32 (channels,), rounded as XNNPACK rounds it."""
        return self.inputs[0].scale * self.weight_scale / self.output.scale

    @property
    def largest_sum(self) -> int:
        """A bound on the magnitude of any partial sum without the bias."""
        (x,) = self.inputs
        reach = max(abs(x.lowest - x.zero_point), abs(x.highest - x.zero_point))
        channels = self.weights.reshape(-1, len(self.bias))
        return int(np.abs(channels.astype(np.int64)).sum(0).max()) * reach


@dataclasses.dataclass(frozen=True, eq=False)
class Window:
    """Where a kernel or pool lies on its input: Keras' arguments of these names."""

    strides: tuple[int, int] = (1, 1)
    padding: Literal["SAME", "VALID"] = "VALID"
    dilations: tuple[int, int] = (1, 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Convolution(LinearOperator):
    """CONV_2D; weights (height, width, in, out)."""

    builtin = "CONV_2D"
    newest_version = 5
    window: Window = Window()


@dataclasses.dataclass(frozen=True, eq=False)
class DepthwiseConvolution(LinearOperator):
    """DEPTHWISE_CONV_2D with multiplier 1; weights (height, width, channels)."""

    builtin = "DEPTHWISE_CONV_2D"
    newest_version = 6
    window: Window = Window()


@dataclasses.dataclass(frozen=True, eq=False)
class FullyConnected(LinearOperator):
    """FULLY_CONNECTED with one weight scale for all outputs; weights (in, out)."""

    builtin = "FULLY_CONNECTED"
    newest_version = 9


@dataclasses.dataclass(frozen=True, eq=False)
class Add(Operator):
    """ADD of two tensors of one shape."""

    builtin = "ADD"
    newest_version = 4
    activation: Activation


@dataclasses.dataclass(frozen=True)
class Constant:
    """One int8 number for all elements: `real = scale * (integer - zero_point)`.

    Attributes:
      integer: -128 .. 127.
      scale: float32.
      zero_point: -128 .. 127.
    """

    integer: int
    scale: np.float32
    zero_point: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class ConstantOperator(Operator):
    """An operator of every element and one constant.

    Attributes:
      constant: its second operand.
      activation: what is fused into it.
    """

    constant: Constant
    activation: Activation


@dataclasses.dataclass(frozen=True, eq=False)
class AddConstant(ConstantOperator):
    """ADD of a constant of whole input steps, onto the input's scale: `clamp(x - x zero + offset + zero)`, exact."""

    builtin = "ADD"
    newest_version = 4

    @property
    def offset(self) -> int:
        """The constant in steps of the input."""
        return round((self.constant.integer - self.constant.zero_point) * self.constant.scale / self.inputs[0].scale)


@dataclasses.dataclass(frozen=True, eq=False)
class MultiplyConstant(ConstantOperator):
    """MUL by a constant: `clamp(rint(m (x - x zero) c) + zero)`, `m = input scale * constant scale / output scale`."""

    builtin = "MUL"
    newest_version = 5

    @property
    def multiplier(self) -> np.float32:
        """float32, rounded as XNNPACK rounds it."""
        return self.inputs[0].scale * self.constant.scale / self.output.scale


@dataclasses.dataclass(frozen=True, eq=False)
class Mean(Operator):
    """MEAN over height and width, with requantization."""

    builtin = "MEAN"
    newest_version = 3


@dataclasses.dataclass(frozen=True, eq=False)
class MaxPool(Operator):
    """MAX_POOL_2D; its output has its input's scale."""

    builtin = "MAX_POOL_2D"
    newest_version = 3
    pool: tuple[int, int]
    window: Window


@dataclasses.dataclass(frozen=True, eq=False)
class Pad(Operator):
    """PAD with zeros, that is with the zero point."""

    builtin = "PAD"
    newest_version = 4
    paddings: tuple[tuple[int, int], tuple[int, int]]


@dataclasses.dataclass(frozen=True, eq=False)
class Reshape(Operator):
    """RESHAPE."""

    builtin = "RESHAPE"
    newest_version = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Softmax(Operator):
    """SOFTMAX over the last axis; its output's scale is 1/256 and its zero point -128."""

    builtin = "SOFTMAX"
    newest_version = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A whole file.

    Attributes:
      inputs: the model's inputs, as int8.
      operators: in an order in which every tensor is written before it is read.
      outputs: the model's outputs, as int8.
    """

    inputs: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    outputs: tuple[Tensor, ...]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The outputs of all operators, in order."""
        return tuple(operator.output for operator in self.operators)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the int8 weights."""
        return sum(math.prod(op.weights.shape) for op in self.operators if isinstance(op, LinearOperator))
