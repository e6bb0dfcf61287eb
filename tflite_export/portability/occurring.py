"""Which integers of an operator's inputs occur together, where all of them are functions of one tensor.

Theorem. If the integers of two tensors are functions of those of a third at the same place, one for each channel, by
operators that every runtime computes alike, their sum or product has 256 cases in a channel, not 65,536. A hard-swish,
`x relu6(x + 3) / 6`, and a swish, `x sigmoid(x)`, are such products.
"""

import dataclasses

import numpy as np

from tflite_export.operators import DepthwiseConvolution
from tflite_export.plan import Operator, Plan, Tensor

_CODES = np.arange(-128, 128)


@dataclasses.dataclass(frozen=True, eq=False)
class _Function:
    """A tensor's integers, float32 (256, 1, .., channels), for the integers -128 .. 127 of another one of its shape."""

    of: Tensor
    integers: np.ndarray


def occurring_together(plan: Plan) -> dict[Operator, list[np.ndarray]]:
    """For each operator whose inputs are functions of one tensor, their integers, int64 (cases,), case by case."""
    functions: dict[Tensor, _Function] = {}
    found = {}
    for operator in plan.operators:
        if not _is_function(operator):
            continue
        known = [functions.get(x) or _itself(x) for x in operator.inputs]
        root = known[0].of
        if all(one.of is root for one in known):
            values = [one.integers for one in known]
            cases = np.stack([codes[root.codes + 128].astype(np.int64).ravel() for codes in values])
            found[operator] = list(np.unique(cases, axis=1))
            result = np.asarray(operator.compute(values, "xnnpack"))
            functions[operator.output] = _Function(root, result)
    return found


def _is_function(operator: Operator) -> bool:
    if any(x.shape != operator.output.shape for x in operator.inputs):
        return False
    is_of_one_pixel = isinstance(operator, DepthwiseConvolution) and operator.weights.shape[:2] == (1, 1)
    return operator.elementwise or is_of_one_pixel


def _itself(x: Tensor) -> _Function:
    codes = np.clip(_CODES, x.lowest, x.highest).astype(np.float32)
    whole = (256, *(1 for _ in x.shape[:-1]), *x.shape[-1:])
    return _Function(x, np.broadcast_to(codes.reshape(256, *(1 for _ in x.shape)), whole).copy())
