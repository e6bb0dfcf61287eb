"""The integers of one operator: from a result in real numbers and the grid it is stored on."""

import dataclasses
from typing import Any

import numpy as np

from satkeras.models.bias_rounding import LARGEST_BIAS
from satkeras.models.graph import Node
from satkeras.quantizers.quant_params import QuantParams, int8_spread
from tflite_export.plan import (
    Activation,
    Add,
    Constant,
    DepthwiseConvolution,
    FullyConnected,
    LinearOperator,
    Mean,
    MultiplyConstant,
    Tensor,
    Window,
)

# What XNNPACK takes: a larger or smaller multiplier falls back to kernels that round twice.
LARGEST_MULTIPLIER = 2.0**8
SMALLEST_MULTIPLIER = 2.0**-32
SMALLEST_ADD_RATIO = 2.0**-10
SMALLEST_PRODUCT_RATIO = 2.0**-16
# The converter widens every range to at least 1e-6, and so changes any smaller step.
SMALLEST_SCALE = np.float32(1e-6 / 254)


class Problem(Exception):
    """Why one layer cannot be lowered."""


@dataclasses.dataclass(frozen=True, eq=False)
class Pending:
    """A result in real numbers: `step * (weights applied to the input's integers) * input step + bias`.

    Attributes:
      kind: the `Operator` class that will compute it.
      inputs: the stored tensors it reads.
      layers: names of the Keras layers it covers so far.
      weights: integers on the training grid, channels last; None for operators without weights.
      largest_weight: the largest integer of that grid.
      step: float64 (channels,), the real size of one step of the weights, negative where batch norm flips the sign.
      bias: float64 (channels,).
      window: where the kernel lies.
      relu: whether a ReLU follows; `ceiling` is its maximum.
    """

    kind: type[Any]
    inputs: tuple[Tensor, ...]
    layers: tuple[str, ...]
    weights: np.ndarray | Any = None
    largest_weight: int = 1
    step: np.ndarray | Any = None
    bias: np.ndarray | Any = None
    window: Window = Window()
    relu: bool = False
    ceiling: float = np.inf


def activation_tensor(node: Node, params: QuantParams) -> tuple[Tensor, Activation]:
    """Where a quantizer's grid lies in int8, and what must be fused for int8 to clip where the quantizer does.

    256 levels fill int8. Fewer unsigned levels lie at its top, so that saturation is the upper clip and ReLU the lower
    one. Fewer signed levels lie around zero in units of the clip value, so that RELU_N1_TO_1 clips at both ends.
    """
    step = float(params.scale)
    if step < SMALLEST_SCALE:
        raise Problem(f"its step is {step:g}; TFLite's converter cannot hold one below {SMALLEST_SCALE:g}")
    levels = params.qmax - params.qmin + 1
    if levels == 256:
        zero_point, lowest, highest, scale, clip = (
            params.zero_point - params.qmin - 128,
            -128,
            127,
            params.scale,
            "none",
        )
    elif params.qmin == params.zero_point:
        zero_point = 127 - (params.qmax - params.qmin)
        lowest, highest, scale, clip = zero_point, 127, params.scale, "relu"
    else:
        zero_point, lowest, highest, clip = 0, params.qmin, params.qmax, "relu_n1_to_1"
        scale = np.float32(1 / params.qmax)
    return Tensor(node.name, node.shape, np.float32(scale), zero_point, step, lowest, highest, node.name), clip


def rescaled(x: Tensor) -> Pending:
    """A stored tensor as the result of a multiplication by 1: the way to requantize it."""
    return Pending(MultiplyConstant, (x,), ())


def identity(x: Tensor) -> Pending:
    """A stored tensor as the result of a 1x1 depthwise convolution: the way to rescale its channels, or shift them."""
    channels = x.shape[-1]
    return Pending(
        DepthwiseConvolution,
        (x,),
        (),
        weights=np.ones((1, 1, channels), np.int64),
        step=np.ones(channels),
        bias=np.zeros(channels),
    )


def add_operator(pending: Pending, output: Tensor, clip: Activation) -> Add:
    """ADD; refuses inputs and outputs on grids that it cannot read or clip to."""
    if clip == "relu_n1_to_1":
        raise Problem("ADD cannot clip a signed grid below 8 bits at both ends")
    for x in pending.inputs:
        if x.scale != np.float32(x.step):
            raise Problem(f"ADD cannot read {x.name}, which is stored in units of its clip value")
        if not SMALLEST_ADD_RATIO <= x.scale / output.scale < LARGEST_MULTIPLIER:
            raise Problem(f"the step of {x.name} is {x.scale / output.scale:g} times its own, beyond 2^-10 .. 2^8")
    return Add(pending.inputs, output, layers=pending.layers, activation=clip)


def mean_operator(pending: Pending, output: Tensor, clip: Activation) -> Mean:
    """MEAN; refuses inputs and outputs on grids that it cannot read or clip to."""
    (x,) = pending.inputs
    if clip == "relu_n1_to_1" or (clip == "relu" and x.lowest < x.zero_point):
        raise Problem("MEAN cannot clip")
    if x.scale != np.float32(x.step):
        raise Problem(f"MEAN cannot read {x.name}, which is stored in units of its clip value")
    return Mean(pending.inputs, output, layers=pending.layers)


def multiply_operator(pending: Pending, output: Tensor, activation: Activation) -> MultiplyConstant:
    """The requantization of a stored tensor: MUL by 127 steps of a constant.

    A tensor has 256 codes at most, so many multipliers make the same integers. The one that is taken stays clear of
    those that would not: no code's product then lies midway between two levels, where XNNPACK rounds to even on x86 and
    up on Arm, nor, where a grid is narrow, so close that rounding twice, as the reference kernels do, matters. Between
    two grids of 8 bits it may.
    """
    (x,) = pending.inputs
    low, high = _equivalent_ratios(x, output, x.step / output.step)
    ratio = np.clip(x.step / output.step, low + (high - low) / 4, high - (high - low) / 4)
    # A smaller one is not for XNNPACK, and this one makes zeros of all codes, too.
    ratio = max(ratio, 127 * SMALLEST_PRODUCT_RATIO * (1 + 1e-6))
    if ratio >= LARGEST_MULTIPLIER:
        raise Problem(f"a step of its input is {ratio:g} of its own, beyond 2^8: its output range is tiny")
    constant = Constant(127, np.float32(ratio * float(output.scale) / float(x.scale) / 127))
    if constant.scale < SMALLEST_SCALE:
        raise Problem(f"its step is {output.step:g}, too small beside its input's {x.step:g} for TFLite")
    return MultiplyConstant(pending.inputs, output, layers=pending.layers, constant=constant, activation=activation)


def _equivalent_ratios(x: Tensor, output: Tensor, ratio: float) -> tuple[float, float]:
    """Between which ratios of steps every code of `x` rounds, ties away from zero, to the level it has at `ratio`."""
    codes = np.arange(x.lowest, x.highest + 1, dtype=np.float64) - x.zero_point
    codes = codes[codes != 0]
    ends = output.lowest - output.zero_point, output.highest - output.zero_point
    # For a code below zero mirrored: then every code and its level rise with the ratio.
    lowest, highest = np.where(codes > 0, ends[0], -ends[1]), np.where(codes > 0, ends[1], -ends[0])
    codes = np.abs(codes)
    levels = np.clip(np.floor(codes * ratio + 0.5), lowest, highest)
    low = np.where(levels > lowest, (levels - 0.5) / codes, 0).max(initial=0)
    high = np.where(levels < highest, (levels + 0.5) / codes, np.inf).min(initial=np.inf)
    return low, min(high, 2 * ratio)


def linear_operator(pending: Pending, x: Tensor, output: Tensor, activation: Activation) -> LinearOperator:
    """The integers of a weighted sum, weights spread over the whole of int8 (see `int8_spread`)."""
    spread = int8_spread(pending.largest_weight)
    weights = pending.weights * spread * np.where(pending.step < 0, -1, 1)
    unit = np.abs(pending.step) / spread
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        steps = pending.bias / (x.step * unit)
    multiplier = x.step * unit / output.step
    to_file = (x.step / float(x.scale)) * (float(output.scale) / output.step)
    lost = (unit * to_file < SMALLEST_SCALE) | (np.abs(steps) > LARGEST_BIAS) | (multiplier < SMALLEST_MULTIPLIER)
    if lost.any():
        weights, unit, steps = _constant_channels(pending, x, output, lost, weights, unit, steps)
        multiplier = x.step * unit / output.step
    if (unit * to_file).min() < SMALLEST_SCALE:
        raise Problem(f"its output's step is {output.step:g}, too small beside its input's {x.step:g} for TFLite")
    if multiplier.max() >= LARGEST_MULTIPLIER:
        raise Problem(f"a step of its sum is {multiplier.max():g} output steps, beyond 2^8: its output range is tiny")
    bias = np.rint(steps)
    fields = {"window": pending.window} if pending.kind is not FullyConnected else {}
    return pending.kind(
        (x,),
        output,
        layers=pending.layers,
        weights=weights.astype(np.int8),
        weight_scale=(unit * to_file).astype(np.float32),
        bias=bias.astype(np.int32),
        activation=activation,
        **fields,
    )


def _constant_channels(pending, x, output, lost, weights, unit, steps):
    """Channels whose weights are too small for the int32 bias (a batch norm's gamma near 0), if they are constant.

    Such a channel is stored exactly as zero weights and a bias of whole output steps, provided that its weighted sum
    cannot move its result off the level where the bias puts it.
    """
    reach = max(abs(x.lowest - x.zero_point), abs(x.highest - x.zero_point))
    swing = np.abs(pending.weights).reshape(-1, len(unit)).sum(0) * reach * x.step * np.abs(pending.step) / output.step
    level = pending.bias / output.step
    ends = output.lowest - output.zero_point, output.highest - output.zero_point
    low, high = (np.rint(np.clip(level + side, *ends)) for side in (-swing, swing))
    moving = lost & (low != high)
    if moving.any() or pending.kind is FullyConnected:
        raise Problem(
            f"the weights of channels {np.flatnonzero(lost)[:8].tolist()} are so small beside their bias (is batch "
            "norm's gamma near 0?) that int32 cannot hold the bias in steps of their sum"
        )
    finest = 2.0**-10
    weights = np.where(lost, 0, weights)
    unit = np.where(lost, finest * output.step / x.step, unit)
    return weights, unit, np.where(lost, low / finest, steps)
