"""What the weighted sums compute, defined in NumPy, and the widths that they are stored with."""

import numpy as np

from tests.tflite_export.operators import rounding
from tests.tflite_export.operators.drawing import patches
from tflite_export.operators import Convolution, DepthwiseConvolution, FullyConnected, LinearOperator


def requantized(operator: LinearOperator, kernels: str, products: np.ndarray) -> np.ndarray:
    """A sum of products with its bias, as each family of kernels brings it to the output's grid."""
    total = rounding.in_int32(products + operator.bias)
    scales = operator.inputs[0].scale, operator.weight_scale, operator.output.scale
    read, weight, written = (np.asarray(scale, np.float64) for scale in scales)
    if kernels == "xnnpack":
        levels = rounding.once(total, scales[0] * scales[1] / scales[2])
    elif kernels == "reference" and isinstance(operator, FullyConnected):
        levels = rounding.away_from_zero(total * (read * weight / written))
    elif isinstance(operator, FullyConnected) and operator.bits == 8:
        levels = rounding.twice(total, (scales[0] * scales[1]).astype(np.float64) / written)
    else:
        levels = rounding.twice(total, read * weight / written)
    return rounding.clamped(levels, operator.output, operator.activation)


def convolution(operator: Convolution, kernels: str, x):
    seen = patches(x - operator.inputs[0].zero_point, operator.weights.shape[:2], operator.window, 0)
    return requantized(operator, kernels, np.einsum("nhwcij,ijco->nhwo", seen, operator.weights.astype(np.int64)))


def depthwise(operator: DepthwiseConvolution, kernels: str, x):
    seen = patches(x - operator.inputs[0].zero_point, operator.weights.shape[:2], operator.window, 0)
    return requantized(operator, kernels, np.einsum("nhwcij,ijc->nhwc", seen, operator.weights.astype(np.int64)))


def fully_connected(operator: FullyConnected, kernels: str, x):
    return requantized(operator, kernels, (x - operator.inputs[0].zero_point) @ operator.weights.astype(np.int64))


DEFINITIONS = {Convolution: convolution, DepthwiseConvolution: depthwise, FullyConnected: fully_connected}

STORED = [(Convolution, 8), (DepthwiseConvolution, 8), (FullyConnected, 8), (FullyConnected, 4), (FullyConnected, 2)]
