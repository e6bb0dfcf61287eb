"""A pass over a plan: weights of 4 and 2 bits, packed, where stock kernels are exact with them.

That is FULLY_CONNECTED alone, with a scale for each output; it stands for 1x1 convolutions with stride 1, too.
Packed weights are spread less far than int8's, if at all, so the steps of the biases are wider. Where that could move a
result by more than half a level the weights stay wider.
"""

import dataclasses

import numpy as np

from satkeras.quantizers.int8 import narrowed
from tflite_export.lowering.requantize import LARGEST_MULTIPLIER
from tflite_export.operators import Convolution, FullyConnected, LinearOperator
from tflite_export.plan import Operator, Plan

# For each width, the integers it holds, and what the number of inputs must be a multiple of: without that XNNPACK does
# not take the operator, and other kernels round otherwise.
_WIDTHS = {2: (-2, 1, 4), 4: (-8, 7, 2)}
# In output levels.
_LARGEST_BIAS_ERROR = 0.5


def pack_weights(plan: Plan) -> Plan:
    """The plan with the weights of 4 and 2 bits wherever they fit; the others stay int8."""
    return dataclasses.replace(plan, operators=tuple(_packed(operator) for operator in plan.operators))


def _packed(operator: Operator) -> Operator:
    if isinstance(operator, FullyConnected):
        weights = operator.weights
    elif isinstance(operator, Convolution) and operator.weights.shape[:2] == (1, 1):
        if tuple(operator.window.strides) != (1, 1):
            return operator
        weights = operator.weights[0, 0]
    else:
        return operator
    integers = weights.astype(np.int64)
    spread = max(int(np.gcd.reduce(np.abs(integers), axis=None)), 1)
    integers //= spread
    for bits, (lowest, highest, multiple) in _WIDTHS.items():
        largest = max(int(np.abs(integers).max()), 1)
        respread = max(min(highest // largest, spread), 1)  # no finer than the steps that biases were rounded to
        if lowest <= integers.min() and integers.max() <= highest and len(integers) % multiple == 0:
            packed = _with_weights(operator, integers * respread, spread / respread, bits)
            if packed is not None:
                return packed
    return operator


def _with_weights(operator: LinearOperator, integers: np.ndarray, wider: float, bits: int) -> FullyConnected | None:
    """With steps of its weights that are `wider` times as wide; None where its biases or sums do not fit."""
    steps = operator.multiplier.astype(np.float64) * wider
    if steps.max() >= LARGEST_MULTIPLIER or steps.max() / 2 > _LARGEST_BIAS_ERROR:
        return None
    packed = FullyConnected(
        operator.inputs,
        operator.output,
        layers=operator.layers,
        sources=operator.sources,
        weights=narrowed(integers, np.int8),
        weight_scale=(operator.weight_scale.astype(np.float64) * wider).astype(np.float32),
        bias=narrowed(np.rint(operator.bias / wider), np.int32),
        activation=operator.activation,
        name=operator.name,
        bits=bits,
        constant_channels=operator.constant_channels,
    )
    return packed if (packed.bounds() <= packed.largest_sum).all() else None
