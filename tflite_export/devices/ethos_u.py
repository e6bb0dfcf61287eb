"""Which operators of a file Arm's Vela leaves to the CPU beside an Ethos-U, by the constraints that it states.

Vela itself has the last word, and its estimates of cycles: it is a package of Python, `pip install ethos-u-vela`, with
pins of its own. The rules are those for Ethos-U55 and U65; an U85 takes all that they take.

References:
  SUPPORTED_OPS.md, which `vela --supported-ops-report` writes (5.2.0).
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tflite_export.devices.contract import Checked
from tflite_export.file.graph import StoredOperator, stored_operators

LARGEST_STRIDE = 3
LARGEST_WEIGHT_SUM = 8_323_072  # of one output channel
LARGEST_POOL = 256
LARGEST_PADDED_POOL = 8
RESIZES = (2, 4, 8)


def check(model: schema.ModelT) -> Checked:
    """Operators that stay on the CPU are notes; none is a problem."""
    operators = list(stored_operators(model))
    on_cpu = list(left_to_the_cpu(operators))
    first = f"by Vela's stated constraints {len(operators) - len(on_cpu)} of {len(operators)} operators run on the NPU"
    return Checked(notes=(first, *(f"on the CPU: {name}: {reason}" for name, reason in on_cpu)))


def left_to_the_cpu(operators: list[StoredOperator]) -> Iterator[tuple[str, str]]:
    """`(name, reason)` of each."""
    for operator in operators:
        limit = CONSTRAINTS.get(operator.builtin)
        reason = f"Vela maps no {operator.builtin}" if limit is None else limit(operator) or _types(operator)
        if reason:
            yield operator.name, reason


def _types(operator: StoredOperator) -> str:
    taken = ("INT8", "UINT8", "INT32") if operator.builtin in ("ADD", "SUB", "MUL", "RESHAPE") else ("INT8", "UINT8")
    wrong = [x for x in (*operator.activations, *operator.outputs) if x.type not in taken]
    return f"{wrong[0].name} is {wrong[0].type}; one of {', '.join(taken)} is required" if wrong else ""


def _none(operator: StoredOperator) -> str:
    return ""


def _kernel(operator: StoredOperator) -> str:
    options = operator.options
    stride, dilated = max(options.strideH, options.strideW), max(options.dilationHFactor, options.dilationWFactor) > 1
    may_be_large = operator.builtin == "CONV_2D" and not dilated and options.padding == schema.Padding.VALID
    if stride > LARGEST_STRIDE and not may_be_large:
        return f"a stride of at most {LARGEST_STRIDE} is required: {stride}"
    return _weights(operator)


def _weights(operator: StoredOperator) -> str:
    kernel = operator.inputs[1]
    if kernel is None or kernel.data is None or kernel.type != "INT8":
        return "constant weights of 8 bits are required"
    values = np.abs(kernel.data.view(np.int8).reshape(kernel.shape).astype(np.int64))
    axis = -1 if operator.builtin == "DEPTHWISE_CONV_2D" else 0
    largest = np.moveaxis(values, axis, 0).reshape(kernel.shape[axis], -1).sum(1).max()
    return f"weights of a sum of at most {LARGEST_WEIGHT_SUM:,} are required" if largest > LARGEST_WEIGHT_SUM else ""


def _average_pool(operator: StoredOperator) -> str:
    options = operator.options
    sizes, is_valid = (options.filterHeight, options.filterWidth), options.padding == schema.Padding.VALID
    if max(options.strideH, options.strideW) > LARGEST_STRIDE and not is_valid:
        return f"a stride of at most {LARGEST_STRIDE} is required"
    if not is_valid and max(sizes) > LARGEST_PADDED_POOL:
        return f"a pool with padding of at most {LARGEST_PADDED_POOL} is required: {sizes}"
    return _pool_size(sizes)


def _max_pool(operator: StoredOperator) -> str:
    options = operator.options
    if max(options.strideH, options.strideW) > LARGEST_STRIDE and options.padding != schema.Padding.VALID:
        return f"a stride of at most {LARGEST_STRIDE} is required"
    return _pool_size((options.filterHeight, options.filterWidth))


def _pool_size(sizes: tuple[int, int]) -> str:
    if math.prod(sizes) > LARGEST_POOL**2 or sizes[0] > LARGEST_POOL:
        return f"a pool of at most {LARGEST_POOL} x {LARGEST_POOL} is required: {sizes}"
    return ""


def _resize(operator: StoredOperator) -> str:
    (_, *before, _), (_, *now, _) = operator.activations[0].shape, operator.outputs[0].shape
    if before == [1, 1] or before == now:
        return ""
    by = int(operator.options.alignCorners)
    factors = [(new - by) / (old - by) if old > by else 0 for new, old in zip(now, before, strict=True)]
    half_pixels = operator.builtin == "RESIZE_BILINEAR" and operator.options.halfPixelCenters
    taken = RESIZES[:1] if half_pixels else RESIZES
    if factors[0] != factors[1] or factors[0] not in taken:
        return f"enlarging both axes by one of {taken} is required: {before} to {now}"
    return ""


def _softmax(operator: StoredOperator) -> str:
    pixels = math.prod(operator.outputs[0].shape[:-1])
    return "" if pixels < 2**16 else f"fewer than 65,536 pixels are required: {pixels}"


def _transposed(operator: StoredOperator) -> str:
    strides = operator.options.strideH, operator.options.strideW
    if strides not in ((1, 1), (2, 2)):
        return f"strides of 1 or 2 are required: {strides}"
    return _weights(operator)


CONSTRAINTS: dict[str, Callable[[StoredOperator], str]] = {
    **dict.fromkeys("ADD SUB MUL MAXIMUM MINIMUM CONCATENATION RESHAPE PAD STRIDED_SLICE TRANSPOSE".split(), _none),
    **dict.fromkeys("QUANTIZE HARD_SWISH LEAKY_RELU LOGISTIC TANH PRELU RELU RELU6 RELU_N1_TO_1".split(), _none),
    **dict.fromkeys(["CONV_2D", "DEPTHWISE_CONV_2D"], _kernel),
    "FULLY_CONNECTED": _weights,
    "TRANSPOSE_CONV": _transposed,
    "AVERAGE_POOL_2D": _average_pool,
    "MAX_POOL_2D": _max_pool,
    **dict.fromkeys(["RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"], _resize),
    "SOFTMAX": _softmax,
}
