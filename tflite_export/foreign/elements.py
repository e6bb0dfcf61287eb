"""Sums and products of elements in a file: a scale nudged until every rule agrees on every pair of integers."""

from collections.abc import Callable

import numpy as np

from tflite_export.foreign.graph import FileGraph
from tflite_export.operators import Add, Subtract
from tflite_export.plan import KERNELS, Tensor
from tflite_export.portability.rounding_rules import Scales, disagree

_SUMS = {"ADD": Add, "SUB": Subtract}
KINDS = (*_SUMS, "MUL")
# By how much, relatively, a scale is moved at most, and in how many steps to either side.
_LARGEST_NUDGE, _NUDGES = 2e-4, 40
_LARGEST_CONSTANT_NUDGE = 1e-2


def rewrite_elements(file: FileGraph, operator, fixed: bool) -> tuple[int, float, str | None]:
    """Nudges the output's scale of an ADD or SUB, or that of a MUL's constant.

    Args:
      file: where the operator is.
      operator: the file's object.
      fixed: whether the output shares its scale with other tensors.

    Returns:
      How many pairs were asked, the relative change of the scale, and why runtimes may part, None if they cannot.
    """
    left, right = (int(index) for index in operator.inputs)
    (output,) = (int(index) for index in operator.outputs)
    pairs = np.meshgrid(file.codes(left), file.codes(right))
    if file.builtin(operator) in _SUMS:
        kind = _SUMS[file.builtin(operator)]
        target, largest = output, _LARGEST_NUDGE
        parted = _parted_sums(file, kind, (left, right, output), pairs)
    else:
        constants = [index for index in (left, right) if file.values(index) is not None]
        target, largest = (constants or [output])[0], _LARGEST_CONSTANT_NUDGE
        fixed = not constants
        parted = _parted_products(file, (left, right, output), pairs, file.clamp(operator))
    given = file.scale(target)
    for nudge in sorted(range(-_NUDGES, _NUDGES + 1), key=abs):
        scale = np.float32(float(given) * (1 + nudge / _NUDGES * largest))
        bad = parted({target: scale})
        if not bad.any():
            if nudge and target != output:  # another operator may read the constant
                inputs = [int(index) for index in operator.inputs]
                inputs[inputs.index(target)] = file.add_copy(target, scale)
                operator.inputs = inputs
            elif nudge:
                file.set_scale(target, scale)
            return bad.size, float(scale) / float(given) - 1, None
        if fixed:
            break
    reason = f"runtimes part on {np.count_nonzero(parted({})):,} of {pairs[0].size:,} pairs of its inputs"
    return pairs[0].size, 0.0, reason


def _parted_sums(file: FileGraph, kind, indices, pairs) -> Callable[[dict], np.ndarray]:
    values = [codes.astype(np.float32) for codes in pairs]

    def parted(scales):
        *inputs, output = (_as_tensor(file, index, scales) for index in indices)
        operator = kind(tuple(inputs), output, "none")
        return np.ptp([np.asarray(operator.compute(values, kernels)) for kernels in KERNELS], axis=0) > 0

    return parted


def _parted_products(file: FileGraph, indices, pairs, clamp) -> Callable[[dict], np.ndarray]:
    left, right, output = indices
    product = (pairs[0] - file.zero_point(left)) * (pairs[1] - file.zero_point(right))
    lowest, highest = (end - file.zero_point(output) for end in clamp)

    def parted(scales):
        one, other, result = (scales.get(index, file.scale(index)) for index in indices)
        return disagree(product, Scales(one, np.asarray(other), result, one_product=True), lowest, highest)

    return parted


def _as_tensor(file: FileGraph, index: int, scales) -> Tensor:
    scale = scales.get(index, file.scale(index))
    return Tensor(file.name(index), (), scale, file.zero_point(index), float(scale))
