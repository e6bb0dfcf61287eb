"""Weighted sums of a file: their biases, scales, and where nothing else helps their weights, made portable."""

import dataclasses

import numpy as np

from satkeras.quantizers.int8 import narrowed
from tflite_export.foreign.graph import FileGraph
from tflite_export.portability.channels import Channels, reach_of
from tflite_export.portability.search import Choice, portable_choice

# For each operator the places of its weights, input and bias among its inputs, and the weights' axis of channels.
_PLACES = {
    "CONV_2D": (1, 0, 2, 0),
    "DEPTHWISE_CONV_2D": (1, 0, 2, 3),
    "FULLY_CONNECTED": (1, 0, 2, 0),
    "TRANSPOSE_CONV": (1, 2, 3, 0),
}
KINDS = tuple(_PLACES)
_LARGEST_EVEN = 126


@dataclasses.dataclass(frozen=True, eq=False)
class FileSum:
    """A weighted sum of a file.

    Attributes:
      operator: the file's object.
      weights: int8 in the file's layout.
      axis: of its channels.
      bias: int32 (channels,), zeros where the file has none.
      bias_scale: float64 (channels,), what its bias counts.
      x: the index of its input.
    """

    operator: object
    weights: np.ndarray
    axis: int
    bias: np.ndarray
    bias_scale: np.ndarray
    x: int


def read_sum(file: FileGraph, operator) -> FileSum:
    """The numbers of a CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED or TRANSPOSE_CONV.

    Raises:
      ValueError: it is none of int8 with constant weights.
    """
    weights_place, x_place, bias_place, axis = _PLACES[file.builtin(operator)]
    inputs = [int(index) for index in operator.inputs]
    x, kernel = inputs[x_place], inputs[weights_place]
    (output,) = operator.outputs
    if not (file.is_int8(x) and file.is_int8(kernel) and file.is_int8(output)):
        raise ValueError("its tensors are not all int8")
    weights = file.values(kernel)
    if weights is None:
        raise ValueError("its weights are no constant")
    if np.asarray(file.tensor(kernel).quantization.zeroPoint).any():
        raise ValueError("its weights have a zero point")
    count = weights.shape[axis]
    scale = np.broadcast_to(file.scales(kernel), count).astype(np.float64) * float(file.scale(x))
    bias = np.zeros(count, np.int32)
    if len(inputs) > bias_place and inputs[bias_place] >= 0:
        stored = file.values(inputs[bias_place])
        if stored is None or stored.dtype != np.int32:
            raise ValueError("its bias is no constant of int32")
        bias = stored
        if file.tensor(inputs[bias_place]).quantization is not None:
            scale = np.broadcast_to(file.scales(inputs[bias_place]), count).astype(np.float64)
    return FileSum(operator, weights, axis, bias, scale, x)


def channels_of(file: FileGraph, found: FileSum, bias: np.ndarray | None = None) -> Channels:
    """The numbers that decide; the bias by default in steps of the scales that the file has by now."""
    (output,), operator = found.operator.outputs, found.operator
    kernel = operator.inputs[_PLACES[file.builtin(operator)][0]]
    codes, zero = file.codes(found.x), file.zero_point(found.x)
    weights = np.moveaxis(found.weights, found.axis, -1).reshape(-1, len(found.bias))
    scales, clamp = file.scales(kernel), file.clamp(operator)
    weight_scale = np.broadcast_to(scales, len(found.bias)).astype(np.float32)
    steps = found.bias_scale / (float(file.scale(found.x)) * weight_scale.astype(np.float64))
    return Channels(
        *reach_of(weights, int(codes[0]) - zero, int(codes[-1]) - zero),
        np.rint(found.bias * steps).astype(np.int64) if bias is None else bias,
        file.scale(found.x),
        weight_scale,
        file.scale(output),
        *(end - file.zero_point(output) for end in clamp),
        one_scale=len(scales) == 1 and len(found.bias) > 1,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Rewritten:
    """What became of a weighted sum.

    Attributes:
      channels: the numbers that the file has now.
      choice: how they were chosen.
      even: bool (channels,), whose weights were made even.
    """

    channels: Channels
    choice: Choice
    even: np.ndarray


def rewrite_sum(file: FileGraph, found: FileSum) -> Rewritten:
    """Writes the portable numbers of a weighted sum into the file; the channels without any stay as they are."""
    channels = channels_of(file, found)
    choice = portable_choice(channels)
    even = np.zeros(len(found.bias), bool)
    if choice.needs_even_weights.any():
        even = choice.needs_even_weights
        found = dataclasses.replace(found, weights=_made_even(found, even))
        channels = channels_of(file, found)
        choice = portable_choice(channels)
    scale = choice.weight_scale[:1] if channels.one_scale else choice.weight_scale
    store_sum(file, found, scale, choice.bias, changed=bool(even.any()))
    chosen = dataclasses.replace(channels, weight_scale=choice.weight_scale, bias=choice.bias)
    return Rewritten(chosen, choice, even)


def _made_even(found: FileSum, channels: np.ndarray) -> np.ndarray:
    """Each weight of some channels to the nearest even one, halves towards multiples of four."""
    even = np.clip(2 * np.rint(found.weights / 2), -_LARGEST_EVEN, _LARGEST_EVEN)
    shape = [1] * found.weights.ndim
    shape[found.axis] = -1
    return narrowed(np.where(channels.reshape(shape), even, found.weights), np.int8)


def store_sum(file: FileGraph, found: FileSum, scale: np.ndarray, bias: np.ndarray, changed: bool = False) -> None:
    """Gives a weighted sum new tensors for weights and bias: others may read the old ones.

    Args:
      file: where it is.
      found: the sum, with the weights that it is to have.
      scale: (channels,) or (1,), of the weights.
      bias: (channels,), whole steps of input scale times weight scale.
      changed: whether the weights are others than the file's.
    """
    operator = found.operator
    weights_place, _, bias_place, _ = _PLACES[file.builtin(operator)]
    inputs = [int(index) for index in operator.inputs]
    kernel = inputs[weights_place]
    (output,) = operator.outputs
    axis = int(file.tensor(kernel).quantization.quantizedDimension)
    if changed:
        inputs[weights_place] = file.add_constant(kernel, file.name(kernel), found.weights, scale, axis)
    else:
        inputs[weights_place] = file.add_copy(kernel, scale)
    old = inputs[bias_place] if len(inputs) > bias_place and inputs[bias_place] >= 0 else None
    name = file.name(old) if old is not None else f"{file.name(output)}/bias"
    new = file.add_constant(old, name, narrowed(bias, np.int32), file.scale(found.x) * scale)
    inputs[bias_place:] = [new, *inputs[bias_place + 1 :]]
    operator.inputs = inputs
