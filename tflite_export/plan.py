"""The export plan: every tensor and operator of the file, in integers, before there is a file.

A plan is plain frozen data. Each operator computes itself (`compute`, for the twin) and writes itself (`write`, for the
file); the operators themselves are in `tflite_export.operators`.
"""

import abc
import dataclasses
import itertools
from typing import Any, ClassVar, Literal

import numpy as np

Activation = Literal["none", "relu", "relu_n1_to_1"]
# Families of kernels, each with one exact meaning. See docs of `integer_model`.
KERNELS = ("xnnpack", "reference", "tflm")


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """An int8 activation: `real = scale * (integer - zero_point)`.

    Attributes:
      name: unique in the plan; the name of the Keras layer whose result it is.
      shape: without the batch axis.
      scale: float32, the size of a step in the file.
      zero_point: -128 .. 127.
      step: the size of a step in the training model. It differs from `scale` for signed tensors below 8 bits, which
        the file holds divided by their clip value, so that a fused RELU_N1_TO_1 clips them at both ends; the
        weights that read them make up for it. And by some millionths where an ADD's scale was moved.
      lowest: the smallest integer that occurs; the largest is `highest`.
      highest: see `lowest`.
      layer: the layer of the quantized model whose output this is, None if the model does not have this tensor.
      integers: those that occur, where not all from the smallest to the largest do.
      offset: of a model's input: by how much the values that the training model takes lie above those that the file
        states for the same code, half a step at most; 0 where 0.0 is a code of the input range.
    """

    name: str
    shape: tuple[int, ...]
    scale: np.float32
    zero_point: int
    step: float
    lowest: int = -128
    highest: int = 127
    layer: str | None = None
    offset: float = 0.0
    integers: tuple[int, ...] = ()

    @property
    def in_clip_units(self) -> bool:
        """Whether the file holds it divided by its clip value."""
        return abs(float(self.scale) / self.step - 1) > 1e-3

    @property
    def codes(self) -> np.ndarray:
        """int64: every integer that can occur."""
        return np.array(self.integers or range(self.lowest, self.highest + 1), np.int64)


@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
    """A constant that an operator reads: `real = scale * (integer - zero_point)`.

    Attributes:
      name: unique in the file.
      values: int8 or int32, in the file's layout.
      scale: float32 (n,), one or one for each channel; None for numbers that stand for themselves, such as a shape.
      zero_point: of all channels.
      axis: the axis that `scale` runs along.
      bits: 4 or 2 for int8 values that the file packs.
    """

    name: str
    values: np.ndarray
    scale: np.ndarray | None = None
    zero_point: int = 0
    axis: int = 0
    bits: int = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Operator(abc.ABC):
    """One operator of the file; a subclass says how it is computed and what it writes.

    Attributes:
      inputs: the activations it reads.
      output: the activation it writes.
      layers: the layers of the quantized model that it completes, in order, its output's quantizer last.
      sources: what the first of these layers reads, where other operators come between; () for `inputs`.
    """

    builtin: ClassVar[str]  # its name in TFLite's schema
    version: ClassVar[int] = 2  # the lowest for int8
    runtime: ClassVar[str] = "1.14.0"  # the first TensorFlow whose runtime has that version
    file_operators: ClassVar[int] = 1  # that it is in the file, the last of which writes its output
    same_everywhere: ClassVar[bool] = False  # that every runtime computes it alike, whatever its numbers
    runs_in_xnnpack: ClassVar[bool] = True  # in LiteRT's default interpreter; the others run in builtin kernels
    elementwise: ClassVar[bool] = False  # that every integer it writes is one function of those at its place

    inputs: tuple[Tensor, ...]
    output: Tensor
    layers: tuple[str, ...] = dataclasses.field(kw_only=True, default=())
    sources: tuple[Tensor, ...] = dataclasses.field(kw_only=True, default=())

    @abc.abstractmethod
    def compute(self, values, kernels: str):
        """The output's integers, as a family of kernels computes them.

        Args:
          values: for each input, its integers (n, ...) in float32.
          kernels: one of `KERNELS`.

        Returns:
          float32 tensor of int8 values.
        """

    @property
    def weight_bytes(self) -> int:
        """Bytes of its quantized kernel, as the file stores them; 0 if it has none."""
        return 0

    def constants(self) -> tuple[Constant, ...]:
        """What it reads after its inputs."""
        return ()

    def options(self) -> Any:
        """Its options as an object of TFLite's schema, None if it has none."""
        return None

    def warnings(self) -> tuple[str, ...]:
        """What its user should know before the file is shipped."""
        return ()

    def slack(self) -> float:
        """How far beyond half a level a float32 computation of the same result may lie from `compute`'s, in levels."""
        return 1e-3

    def on_step(self, output: Tensor, factor: float) -> "Operator | None":
        """What writes the same integers where a step is `factor` times as large; None if that takes a table."""
        return None

    def write(self, file) -> None:
        """Adds itself to a file; see `tflite_export.file.writer.FileWriter`."""
        constants = [file.constant(constant) for constant in self.constants()]
        inputs = [file.activation(x) for x in self.inputs]
        file.operator(self, inputs + constants, file.activation(self.output))


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A whole file.

    Attributes:
      inputs: the model's inputs, as int8.
      operators: in an order in which every tensor is written before it is read.
      outputs: the model's outputs, as int8; no tensor twice, none of them an input.
      input_names: the Keras names of the inputs.
      output_names: the Keras names of the outputs.
    """

    inputs: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    outputs: tuple[Tensor, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The outputs of all operators, in order."""
        return tuple(operator.output for operator in self.operators)

    @property
    def places(self) -> tuple[int, ...]:
        """For each operator, which of the file's operators writes its output, from 0 on."""
        return tuple(
            count - 1 for count in itertools.accumulate(operator.file_operators for operator in self.operators)
        )

    @property
    def weight_bytes(self) -> int:
        """Bytes of the quantized kernels, as the file stores them."""
        return sum(operator.weight_bytes for operator in self.operators)


def new_name(name: str, names: set[str]) -> str:
    """`name`, numbered if it is among `names`; they hold the new one from now on."""
    unique = next(one for count in itertools.count() if (one := f"{name}_{count}" if count else name) not in names)
    names.add(unique)
    return unique
