"""What the integers of a plan prove, operator by operator: that every runtime computes them alike, or why not."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from tflite_export.operators import LinearOperator, Lookup, MultiplyConstant, ResizeBilinear
from tflite_export.operators.elementwise import Product, Sum
from tflite_export.plan import KERNELS, Activation, Operator, Plan, Tensor
from tflite_export.portability.channels import Channels, reach_of
from tflite_export.portability.occurring import occurring_together
from tflite_export.portability.proof import bad_reachable_sums
from tflite_export.portability.rounding_rules import Scales, disagree


@dataclasses.dataclass(frozen=True)
class Portability:
    """The proof that a file gives the same integers on every runtime, or what is missing from it.

    A channel is proved by every sum that any input can make it reach, under every rule of `rounding_rules`; an ADD, SUB
    or MUL by all pairs of its inputs' integers that can occur.

    Attributes:
      operators: of the plan.
      channels: of its weighted sums.
      sums: how many sums and pairs were enumerated.
      as_they_were: channels whose scale and bias are the trained ones.
      by_bias: those whose bias alone was moved.
      moved: those whose scale was.
      made_even: those whose weights were halved to even integers.
      largest_move: the largest relative change of a scale.
      largest_bias_move: the largest change of a bias, in output levels.
      gates: factors of products of tensors that take only some integers of their grids.
      problems: `(tensor, reason)` for each operator whose integers a runtime may round otherwise.
    """

    operators: int
    channels: int
    sums: int
    as_they_were: int
    by_bias: int
    moved: int
    made_even: int
    largest_move: float
    largest_bias_move: float
    gates: int
    problems: tuple[tuple[str, str], ...]

    @property
    def whole(self) -> bool:
        """Whether the file is portable."""
        return not self.problems

    def __str__(self):
        head = "the same integers on every runtime" if self.whole else f"{len(self.problems)} operators not portable"
        lines = [
            f"portability: {head}; {self.operators} operators, {self.channels:,} channels, {self.sums:,} sums asked",
            f"channels as they were: {self.as_they_were:,}, by their bias alone: {self.by_bias:,}, scale moved: "
            f"{self.moved:,} (by {self.largest_move:.2%} at most), made even: {self.made_even:,}; "
            f"a bias moved by {self.largest_bias_move:.2f} levels at most; gates on chosen integers: {self.gates}",
            *(f"not portable: {name}: {reason}" for name, reason in self.problems),
        ]
        return "\n".join(lines)


def prove(plan: Plan) -> Portability:
    """Enumerates what every operator of a plan can be asked for."""
    sums, problems = 0, []
    together = occurring_together(plan)
    for operator in plan.operators:
        asked, reason = evidence(operator, together.get(operator))
        sums += asked
        if reason is not None:
            problems.append((operator.output.name, reason))
    return _with_moves(plan.operators, sums, problems)


def _with_moves(operators: Sequence[Operator], sums: int, problems) -> Portability:
    linear = [operator for operator in operators if isinstance(operator, LinearOperator)]
    factors, shifts = [np.zeros(0)], [np.zeros(0)]
    for operator in linear:
        if operator.origin is not None:
            factors.append(operator.origin.factor)
            shifts.append(operator.origin.shift / operator.output.step)
    factor, shift = np.concatenate(factors), np.concatenate(shifts)
    channels = sum(len(operator.bias) for operator in linear)
    moved, by_bias = factor != 1, (factor == 1) & (shift != 0)
    return Portability(
        operators=len(operators),
        channels=channels,
        sums=sums,
        as_they_were=channels - int(moved.sum()) - int(by_bias.sum()),
        by_bias=int(by_bias.sum()),
        moved=int(moved.sum()),
        made_even=sum(len(operator.origin.even) for operator in linear if operator.origin is not None),
        largest_move=float(np.abs(factor - 1).max(initial=0)),
        largest_bias_move=float(np.abs(shift).max(initial=0)),
        gates=sum(bool(operator.output.integers) for operator in operators),
        problems=tuple(problems),
    )


def clamp_levels(output: Tensor, activation: Activation) -> tuple[int, int]:
    """The lowest and highest level, from the zero point, that int8 and a fused activation let through."""
    lowest, highest = -128, 127
    if activation == "relu":
        lowest = output.zero_point
    elif activation == "relu_n1_to_1":
        lowest, highest = output.lowest, output.highest
    return lowest - output.zero_point, highest - output.zero_point


def channels_of(operator: LinearOperator) -> Channels:
    """The numbers of a weighted sum that decide."""
    (x,) = operator.inputs
    weights = operator.weights.reshape(-1, len(operator.bias))
    return Channels(
        *reach_of(weights, x.lowest - x.zero_point, x.highest - x.zero_point),
        operator.bias.astype(np.int64),
        x.scale,
        operator.weight_scale,
        operator.output.scale,
        *clamp_levels(operator.output, operator.activation),
        one_scale=getattr(operator, "has_one_scale", False),
    )


@functools.singledispatch
def evidence(operator: Operator, occurring: Sequence[np.ndarray] | None = None) -> tuple[int, str | None]:
    """How many sums or cases of integers were asked, and why runtimes may part on the operator; None if they cannot.

    Args:
      operator: of a plan.
      occurring: for each input, its integers, case by case, where not all pairs of them occur.
    """
    if operator.same_everywhere:
        return 0, None
    return 0, f"{operator.builtin} is computed in several ways, a function of its own in every runtime"


@evidence.register
def _(operator: LinearOperator, occurring=None):
    count, bad = bad_reachable_sums(channels_of(operator))
    return int(count.sum()), reason_of_channels(bad)


def reason_of_channels(bad: np.ndarray) -> str | None:
    """What the bad sums of an operator's channels, int64 (channels,), say; None if there are none."""
    channels = np.flatnonzero(bad)
    if not len(channels):
        return None
    return (
        f"runtimes part on {int(bad.sum()):,} sums that {len(channels)} of its {len(bad)} channels can reach (channels "
        f"{', '.join(map(str, channels[:8]))}{', ...' if len(channels) > 8 else ''})"
    )


@evidence.register
def _(operator: Lookup, occurring=None):
    if operator.inputs[0].zero_point == 0:
        return 0, None
    return 0, "TOSA's converter takes the zero point from the integers that a table is asked for: give its input none"


@evidence.register
def _(operator: ResizeBilinear, occurring=None):
    if operator.inputs[0].lowest >= 0:  # halves are then one and the same, up and away from zero
        return 0, None
    return 0, "runtimes part on the halves between two negative integers: give its input an unsigned grid below 8 bits"


@evidence.register
def _(operator: Sum, occurring=None):
    cases = occurring or all_pairs(operator.inputs)
    return cases[0].size, _of_cases(_kernels_part(operator, cases))


@evidence.register
def _(operator: Product, occurring=None):
    cases = occurring or all_pairs(operator.inputs)
    return cases[0].size, _of_cases(products_part(operator, cases) | _kernels_part(operator, cases))


def all_pairs(inputs: Sequence[Tensor]) -> list[np.ndarray]:
    """The integers of one input, or of each of two in all pairs."""
    if len(inputs) == 1:
        return [inputs[0].codes]
    left, right = inputs
    return [codes.ravel() for codes in np.meshgrid(left.codes, right.codes)]


def products_part(operator: Product, cases: Sequence[np.ndarray]) -> np.ndarray:
    """bool: where two rules part on the product of integers, one of them perhaps a constant's."""
    integers = [codes - x.zero_point for codes, x in zip(cases, operator.inputs, strict=True)]
    if isinstance(operator, MultiplyConstant):
        integers.append(np.int64(operator.integer - operator.constant_zero_point))
    left, right = integers
    one, other = operator.scales
    scales = Scales(one, np.asarray(other), operator.output.scale, one_product=True)
    return disagree(left * right, scales, *clamp_levels(operator.output, operator.activation))


def _kernels_part(operator: Operator, cases: Sequence[np.ndarray]) -> np.ndarray:
    values = [codes.astype(np.float32) for codes in cases]
    return np.ptp([np.asarray(operator.compute(values, kernels)) for kernels in KERNELS], axis=0) > 0


def _of_cases(parted: np.ndarray) -> str | None:
    count = int(np.count_nonzero(parted))
    return f"runtimes part on {count:,} of {parted.size:,} cases of its inputs" if count else None
