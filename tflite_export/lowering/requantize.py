"""The integers of one operator: from a result in real numbers and the grid it is stored on."""

import itertools

import numpy as np

from satkeras.models.bias_rounding import LARGEST_BIAS
from satkeras.quantizers.int8 import LARGEST_WEIGHT, narrowed
from tflite_export.lowering.pending import Pending, Problem, WeightedSum
from tflite_export.operators import FullyConnected, LinearOperator, MultiplyConstant, Origin
from tflite_export.plan import KERNELS, Activation, Tensor
from tflite_export.portability.plans import products_part

# What XNNPACK takes: a larger or smaller multiplier falls back to kernels that round twice, or does not load.
LARGEST_MULTIPLIER = 2.0**8
SATURATING_MULTIPLIER = 255.5
SMALLEST_MULTIPLIER = 2.0**-32
SMALLEST_PRODUCT_RATIO = 2.0**-16
# Below it a scale times a scale leaves float32's normal numbers.
SMALLEST_SCALE = np.float32(2.0**-60)


def multiply_operator(pending: Pending, output: Tensor, activation: Activation) -> MultiplyConstant:
    """The requantization of a stored tensor: MUL by 127 steps of a constant, or by 255 where that agrees better.

    A tensor has 256 codes at most, so many multipliers give the same integers. The one chosen stays clear of those that
    would not: no code's product then lies midway between two levels, where XNNPACK rounds to even on x86 and up on Arm,
    nor, where a grid is narrow, so close that rounding twice, as the reference kernels do, matters. Between two grids
    of 8 bits it may; then the nearest multiplier is taken with which all rules of rounding agree, or at least the
    families of kernels, if there is one.
    """
    (x,) = pending.inputs
    low, high = _equivalent_ratios(x, output, x.step / output.step)
    # Where one step of the input is beyond the output's last level, 255 of its own, it is so with 256, too.
    high = min(high, LARGEST_MULTIPLIER)
    middle = np.clip(x.step / output.step, low + (high - low) / 4, high - (high - low) / 4)
    # A smaller one is not for XNNPACK, and this one makes zeros of all codes, too.
    smallest = SMALLEST_PRODUCT_RATIO * (1 + 1e-6)
    ratios = [middle, *(low + (high - low) * share for share in np.linspace(0.05, 0.95, 19))]
    operators = [_multiply_by(max(ratio, 127 * smallest), 0, pending, output, activation) for ratio in ratios]
    # With 255 steps rounding twice errs by half as much.
    finer = [_multiply_by(ratio, -128, pending, output, activation) for ratio in ratios if ratio > 255 * smallest]
    for operator in (*operators, *finer):
        if not products_part(operator, [x.codes]).any() and _families_agree(operator):
            return operator
    return next((operator for operator in operators if _families_agree(operator)), operators[0])


def _multiply_by(ratio: float, zero_point: int, pending, output: Tensor, activation: Activation) -> MultiplyConstant:
    (x,) = pending.inputs
    scale = np.float32(ratio * float(output.scale) / float(x.scale) / (127 - zero_point))
    return MultiplyConstant(pending.inputs, output, 127, scale, zero_point, activation, layers=pending.layers)


def _families_agree(operator: MultiplyConstant) -> bool:
    codes = [operator.inputs[0].codes.astype(np.float32)]
    results = [np.asarray(operator.compute(codes, kernels)) for kernels in KERNELS]
    return all(np.array_equal(*pair) for pair in itertools.pairwise(results))


def _equivalent_ratios(x: Tensor, output: Tensor, ratio: float) -> tuple[float, float]:
    """Between which ratios of steps every code of `x` rounds, ties away from zero, to the level it has at `ratio`."""
    codes = x.codes.astype(np.float64) - x.zero_point
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
    """The integers of a weighted sum, weights spread over the whole of int8 (see `weight_spread`).

    A channel whose bias int32 cannot hold in such steps keeps its weights as they are, in steps that are wider.

    Raises:
      Problem: int8, int32 or float32 cannot hold one of its numbers.
    """
    total = pending.total
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        steps = total.bias / (x.step * np.abs(total.step))
        spread = np.where(np.abs(steps) * total.spread > LARGEST_BIAS, 1, total.spread)
        steps = steps * spread
    weights = total.weights * narrowed(np.where(total.step < 0, -spread, spread), np.int16)
    unit = np.abs(total.step) / spread
    multiplier = x.step * unit / output.step
    to_file = (x.step / float(x.scale)) * (float(output.scale) / output.step)
    lost = (unit * to_file < SMALLEST_SCALE) | (np.abs(steps) > LARGEST_BIAS) | (multiplier < SMALLEST_MULTIPLIER)
    if lost.any():
        weights, unit, steps = _constant_channels(total, x, output, lost, weights, unit, steps)
        multiplier = x.step * unit / output.step
    # Where a step of the sum is beyond the output's last level, 255 of its own, it is so with a smaller one, too.
    saturating = multiplier >= SATURATING_MULTIPLIER
    unit = np.where(saturating, unit * (SATURATING_MULTIPLIER / multiplier), unit)
    _require_weights_in_int8(total, weights)
    window = {"window": total.window} if total.kind is not FullyConnected else {}
    operator = total.kind(
        (x,),
        output,
        layers=pending.layers,
        weights=narrowed(weights, np.int8),
        weight_scale=(unit * to_file).astype(np.float32),
        bias=narrowed(np.rint(steps), np.int32),
        activation=activation,
        name=total.name,
        constant_channels=tuple(np.flatnonzero(lost).tolist()),
        saturating_channels=tuple(np.flatnonzero(saturating).tolist()),
        origin=_origin(total, unit),
        **window,
    )
    _require_sums_in_int32(operator)
    return operator


def _origin(total: WeightedSum, unit: np.ndarray) -> Origin:
    factor, shift = (np.broadcast_to(value, unit.shape) for value in (total.factor, total.shift))
    return Origin(total.call, unit, total.bias, factor, shift, total.even)


def _require_weights_in_int8(total: WeightedSum, weights: np.ndarray) -> None:
    beyond = np.abs(weights) > LARGEST_WEIGHT
    if beyond.any():
        channels = np.flatnonzero(beyond.reshape(-1, weights.shape[-1]).any(0))
        raise Problem(
            f"{int(beyond.sum())} of its weights are {int(weights[beyond].min())} .. {int(weights[beyond].max())} on "
            f"their grid (channels {channels[:8].tolist()}), and TFLite's int8 weights end at -{LARGEST_WEIGHT} and "
            f"{LARGEST_WEIGHT}: use a symmetric grid -127 .. 127, or 7 bits"
        )


def _require_sums_in_int32(operator: LinearOperator) -> None:
    bounds, largest = operator.bounds(), operator.largest_sum
    worst = int((bounds / largest).argmax())
    if bounds[worst] > largest[worst]:
        raise Problem(
            f"the sum of channel {worst} can reach {int(bounds[worst]):,} (weights, input and bias at their largest), "
            f"kernels compute it in int32 and wrap beyond {int(largest[worst]):,}: shrink its input (pool before it), "
            "or give its weights fewer bits"
        )


def _constant_channels(total, x, output, lost, weights, unit, steps):
    """Channels whose weights are too small for the int32 bias (a batch norm's gamma near 0), if they are constant.

    Such a channel is stored exactly as zero weights and a bias of whole output steps, provided that its weighted sum
    cannot move its result off the level where the bias puts it.
    """
    reach = max(abs(x.lowest - x.zero_point), abs(x.highest - x.zero_point))
    swing = np.abs(total.weights).reshape(-1, len(unit)).sum(0) * reach * x.step * np.abs(total.step) / output.step
    level = total.bias / output.step
    ends = output.lowest - output.zero_point, output.highest - output.zero_point
    low, high = (np.rint(np.clip(level + side, *ends)) for side in (-swing, swing))
    moving = lost & (low != high)
    if moving.any():
        raise Problem(
            f"the weights of channels {np.flatnonzero(lost)[:8].tolist()} are so small beside their bias (is batch "
            "norm's gamma near 0?) that int32 cannot hold the bias in steps of their sum: set these gammas and biases "
            "to 0, or train on"
        )
    finest = 2.0**-10
    weights = np.where(lost, 0, weights)
    unit = np.where(lost, finest * output.step / x.step, unit)
    return weights, unit, np.where(lost, low / finest, steps)
