"""A quantizer whose levels are not evenly spaced, as operators: one for each threshold, and their sum.

`[code >= T]` is an ADD of a constant onto a tensor of two levels, 126 and 127, on the scale of its input: with T at
level 1, its fused ReLU clamps what is below, int8 saturates above. Nothing is rounded, so all kernels agree.
"""

import dataclasses

import numpy as np

from satkeras.quantizers import Quantizer
from satkeras.reports.integers import first_codes
from tflite_export.operators import AddConstant
from tflite_export.plan import Tensor

# Where zero lies in the constants: they run from 1, for a threshold at the lowest code, to -254, at the highest.
CONSTANT_ZERO_POINT = 126


def threshold_operators(x: Tensor, output: Tensor, quantizer: Quantizer, variables) -> list[AddConstant]:
    """`[code of x >= T]` for each level of a quantizer above 0, on `output`'s scale; one alone is `output` itself."""
    codes = x.codes
    first = first_codes(quantizer, variables, np.float32(x.step) * (codes - x.zero_point))
    return [_threshold(x, output, x.lowest + int(index), place) for place, index in enumerate(first, start=1)]


def _threshold(x: Tensor, output: Tensor, first_code: int, place: int) -> AddConstant:
    stored = partial_sum(output, 1)
    if stored is not output:
        stored = dataclasses.replace(stored, name=f"{output.name}/threshold_{place}")
    rise = 1 - (first_code - x.zero_point)
    # A threshold beyond all codes needs one more than int8 holds; two lie one double step further.
    steps_per_unit = 1 if rise >= -254 else 2
    integer = CONSTANT_ZERO_POINT + rise // steps_per_unit
    return AddConstant((x,), stored, integer, x.scale * np.float32(steps_per_unit), CONSTANT_ZERO_POINT, "relu")


def partial_sum(output: Tensor, count: int) -> Tensor:
    """Where the sum of `count` thresholds is stored: levels 0 .. count at the top of int8; `output` itself for all."""
    lowest = 127 - count
    if lowest == output.lowest:
        return output
    name = f"{output.name}/sum_{count}"
    return dataclasses.replace(output, name=name, zero_point=lowest, lowest=lowest, layer=None)
