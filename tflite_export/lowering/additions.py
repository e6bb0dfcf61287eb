"""ADD and SUB: the grids that they can read, and the output scale on which all families of kernels agree."""

import dataclasses
import math

import numpy as np

from tflite_export.lowering.grids import require_true_scale
from tflite_export.lowering.pending import Pending, Problem
from tflite_export.operators import Add, Subtract
from tflite_export.operators.elementwise import LARGEST_NUDGE
from tflite_export.plan import Activation, Tensor

# XNNPACK takes steps of 2^-10 .. 2^8 output steps; its own scale may move after that.
SMALLEST_RATIO = 2.0**-10 * (1 + LARGEST_NUDGE)
LARGEST_RATIO = 2.0**8 * (1 - LARGEST_NUDGE)
# How many steps an ADD's output scale can take to either side.
ADD_NUDGES = 40


def copy_for_add(x: Tensor, other: Tensor, output: Tensor) -> Tensor:
    """`x`, or the grid of a copy that ADD can read.

    Steps that are too small become 2^-10 output steps, which moves a sum by half a thousandth of a level. Of steps that
    are too large a whole fraction is the new one, which is exact; codes beyond int8 are clipped, if they saturate the
    sum all the same.

    Args:
      x: an input.
      other: the input it is added to.
      output: their sum.

    Raises:
      Problem: no such copy is exact.
    """
    require_true_scale(x, "ADD")
    ratio = x.step / output.step
    if ratio < SMALLEST_RATIO:
        return _copy(x, SMALLEST_RATIO * output.step, x.zero_point, x.lowest, x.highest)
    if ratio < LARGEST_RATIO:
        return x
    fraction = math.floor(ratio / LARGEST_RATIO) + 1
    lowest, highest = (np.clip((code - x.zero_point) * fraction, -127, 127) for code in (x.lowest, x.highest))
    clips = fraction * _reach(x) > 127
    if clips and 127 * ratio / fraction < 256 + _reach(other) * other.step / output.step:
        raise Problem(
            f"a step of {x.name} is {ratio:g} times its own, and one of {other.name} {other.step / output.step:g}; ADD "
            "takes less than 2^8. Train on, or calibrate anew: its output range is far from what it holds"
        )
    return _copy(x, x.step / fraction, 0, int(lowest), int(highest))


def _copy(x: Tensor, step: float, zero_point: int, lowest: int, highest: int) -> Tensor:
    scale = np.float32(step)
    return Tensor(f"{x.name}/rescaled", x.shape, scale, zero_point, float(scale), lowest, highest)


def _reach(x: Tensor) -> int:
    return max(abs(x.lowest - x.zero_point), abs(x.highest - x.zero_point))


def add_operator(
    pending: Pending, output: Tensor, activation: Activation, kind: type[Add] | type[Subtract] = Add
) -> Add | Subtract:
    """ADD or SUB; its output's scale moves by up to 4e-5 until all families of kernels agree on all pairs of inputs."""
    planned = kind(pending.inputs, output, layers=pending.layers, activation=activation)
    left, right = (x.codes.astype(np.float32) for x in pending.inputs)
    pairs = left[:, None], right  # what is done to one input alone is then done to its 256 codes alone
    for nudge in sorted(range(-ADD_NUDGES, ADD_NUDGES + 1), key=abs):
        scale = np.float32(float(output.scale) * (1 + nudge / ADD_NUDGES * LARGEST_NUDGE))
        nudged = dataclasses.replace(planned, output=dataclasses.replace(output, scale=scale))
        results = [np.asarray(nudged.compute(pairs, kernels)) for kernels in ("xnnpack", "reference")]
        if np.array_equal(*results):
            return nudged
    return planned
