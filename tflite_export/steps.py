"""A quantizer whose levels are not evenly spaced, as operators: a step for each level, and their sum.

`[code >= T]` is a 1x1 depthwise convolution onto a tensor of two levels, 126 and 127: its fused ReLU clamps below, int8
saturates above. Every step has a slope of its own; with equal ones TensorFlow's converter merges the convolutions and
leaves float sums.
"""

import dataclasses

import numpy as np

from satkeras.integers import first_codes
from satkeras.quantizers import Quantizer
from tflite_export.plan import LinearOperator, Tensor
from tflite_export.requantize import identity, linear_operator


def step_operators(x: Tensor, output: Tensor, quantizer: Quantizer, variables) -> list[LinearOperator]:
    """`[code of x >= T]` for each level of a quantizer above 0, in steps of `output`; one alone is `output` itself."""
    codes = np.arange(x.lowest, x.highest + 1)
    first = first_codes(quantizer, variables, np.float32(x.step) * (codes - x.zero_point))
    return [_step(x, output, x.lowest + int(index), slope) for slope, index in enumerate(first, start=1)]


def _step(x: Tensor, output: Tensor, first_code: int, slope: int) -> LinearOperator:
    stored = partial_sum(output, 1)
    if stored is not output:
        stored = dataclasses.replace(stored, name=f"{output.name}/step_{slope}")
    one = identity(x)
    # A rise of `slope` levels for each code, with level 1 at the first code.
    rise = slope * output.step / x.step * one.step
    bias = output.step * (1 - slope * (first_code - x.zero_point)) * one.step
    return linear_operator(dataclasses.replace(one, step=rise, bias=bias), x, stored, "relu")


def partial_sum(output: Tensor, count: int) -> Tensor:
    """Where the sum of `count` steps is stored: levels 0 .. count at the top of int8; `output` itself for all."""
    lowest = 127 - count
    if lowest == output.lowest:
        return output
    name = f"{output.name}/sum_{count}"
    return dataclasses.replace(output, name=name, zero_point=lowest, lowest=lowest, layer=None)
