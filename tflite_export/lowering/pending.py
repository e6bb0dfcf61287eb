"""A result that no operator has computed yet: it waits for its batch norm, its ReLU, and the grid it is stored on."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from tflite_export.operators import Convolution, DepthwiseConvolution, FullyConnected, TransposeConvolution, Window
from tflite_export.plan import Tensor


class Problem(Exception):
    """Why one layer cannot be lowered, and the way out."""


@dataclasses.dataclass(frozen=True, eq=False)
class WeightedSum:
    """`step * (weights applied to the input's integers) * input step + bias`, in real numbers.

    Attributes:
      kind: the operator class that will compute it.
      name: of the layer whose kernel it holds.
      weights: integers on the training grid, relative to its zero point, channels last.
      spread: how many int8 steps are stored for one of the grid.
      step: float64 (channels,), the real size of one step of the weights, negative where batch norm flips the sign.
      bias: float64 (channels,).
      window: where the kernel lies.
      call: the name of the call whose result it is; None for one that the model does not have.
      factor: float64, what a channel scale behind the call has multiplied `step` by, a scalar or (channels,).
      shift: float64, by how much it has moved `bias`, too.
      even: the channels whose weights were made even.
    """

    kind: type[Convolution] | type[DepthwiseConvolution] | type[FullyConnected] | type[TransposeConvolution]
    name: str
    weights: np.ndarray
    spread: int
    step: np.ndarray
    bias: np.ndarray
    window: Window = Window()
    call: str | None = dataclasses.field(kw_only=True, default=None)
    factor: np.ndarray = dataclasses.field(kw_only=True, default_factory=lambda: np.ones(()))
    shift: np.ndarray = dataclasses.field(kw_only=True, default_factory=lambda: np.zeros(()))
    even: tuple[int, ...] = dataclasses.field(kw_only=True, default=())


@dataclasses.dataclass(frozen=True, eq=False)
class Pending:
    """A result that waits for the grid it is stored on.

    Attributes:
      inputs: the stored tensors it reads; for a join results that wait, too.
      layers: names of the Keras layers it covers so far.
      close: given the walk, this result, the stored tensor and what to fuse, emits the operators.
      total: what is summed, for a weighted sum.
      relu: whether a ReLU follows; `ceiling` is its maximum.
      rescales: whether a multiplier is free, so that the result can be stored in units of its clip value.
    """

    inputs: tuple[Any, ...]
    layers: tuple[str, ...]
    close: Callable[[Any, "Pending", Tensor, str], Tensor]
    total: WeightedSum | None = None
    relu: bool = False
    ceiling: float = np.inf
    rescales: bool = True

    def then(self, layer: str, **changes) -> "Pending":
        """The same with one more layer covered."""
        return dataclasses.replace(self, layers=(*self.layers, layer), **changes)
