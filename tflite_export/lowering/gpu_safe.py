"""A pass over a plan: no strided 1x1 convolution, of which LiteRT's GPU delegates compute garbage.

A 2x2 kernel whose other three weights are zeros has the same sums.
"""

import dataclasses

import numpy as np

from tflite_export.lowering.padding import explicit_padding
from tflite_export.operators import Convolution
from tflite_export.plan import Operator, Plan


def with_larger_kernels(plan: Plan) -> Plan:
    """The plan with a 2x2 kernel, four times as large, for every strided 1x1 one; its integers are the same."""
    return explicit_padding(dataclasses.replace(plan, operators=tuple(_larger(one) for one in plan.operators)))


def _larger(operator: Operator) -> Operator:
    if not isinstance(operator, Convolution) or operator.weights.shape[:2] != (1, 1):
        return operator
    if tuple(operator.window.strides) == (1, 1):
        return operator
    weights = np.pad(operator.weights, ((0, 1), (0, 1), (0, 0), (0, 0)))
    # SAME pads behind the last row and column alone, where the last window needs it.
    return dataclasses.replace(operator, weights=weights, window=dataclasses.replace(operator.window, padding="SAME"))
