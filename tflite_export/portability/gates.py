"""Portable products of two tensors: one of them, the gate, takes only integers on whose products no rule parts.

Theorem. Let the other factor take the integers a, the gate the integers b, both less their zero points. The product is
the sum `a b` of the rules in `rounding_rules`, so a gate that keeps to those b for which no rule parts on any `a b`
gives the same levels everywhere. 0 is always among them, and there are many: with the multiplier m = 1 / (2 q), q odd,
every tie (k + 1/2) / m = (2 k + 1) q is odd, and all even b are portable. Moving the gate's scale by some thousandths
comes near such a multiplier, or to one that leaves still more. Of a gate that is a function of the other factor only
the pairs that occur count, 256 at most, and hardly any scale parts on one: its integers stay what they are.

Nothing is concluded from this: the rules are asked, with the float32 numbers that the file will hold.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tflite_export.operators import LinearOperator, Multiply
from tflite_export.plan import Plan, Tensor
from tflite_export.portability.occurring import occurring_together
from tflite_export.portability.plans import all_pairs, evidence, products_part

_CODES = np.arange(-128, 128)
# What a gate's scale is multiplied by; and if few pairs occur, so that its integers may stay what they are.
_FACTORS = 1 + 1e-4 * np.arange(-100, 101)
_MORE_FACTORS = 1 + 1e-4 * np.arange(-300, 301)
# Root mean square of what the gate's integers move by, over their range: a gate that moves farther is another one.
_LARGEST_ERROR = 0.02


@dataclasses.dataclass(frozen=True, eq=False)
class GateChoice:
    """Which integers a gate takes.

    Attributes:
      place: which of the product's inputs the gate is, 0 or 1.
      codes: int64 (256,), what each of the integers -128 .. 127 becomes.
      factor: by how much the gate's step is multiplied.
    """

    place: int
    codes: np.ndarray
    factor: float

    @property
    def keeps_integers(self) -> bool:
        """Whether each stays what it is, which costs no operator."""
        return np.array_equal(self.codes, _CODES)


def gate_of(operator: Multiply, plan: Plan) -> int:
    """The place of the input that had better be the gate: the smaller tensor, else a table's, else the later one."""
    summed = {one.output for one in plan.operators if isinstance(one, LinearOperator)}
    written = {x: place for place, x in enumerate(plan.tensors)}

    def order(place):
        x = operator.inputs[place]
        return np.prod(x.shape), x in summed, -written.get(x, -1)

    return min((0, 1), key=order)


def chosen_tensor(x: Tensor, codes: np.ndarray, factor: float, name: str, layer: str | None) -> Tensor:
    """A gate as it is after a choice."""
    integers = np.unique(codes[x.codes + 128])
    return dataclasses.replace(
        x,
        name=name,
        layer=layer,
        scale=np.float32(float(x.scale) * factor),
        step=x.step * factor,
        lowest=int(integers[0]),
        highest=int(integers[-1]),
        integers=tuple(integers.tolist()),
    )


def portable_gate(operator: Multiply, place: int, occurring: Sequence[np.ndarray] | None = None) -> GateChoice | None:
    """The choice with which a product is portable and its gate moves least.

    Args:
      operator: the product.
      place: which of its inputs is the gate.
      occurring: as for `evidence`.

    Returns:
      None if no choice would do: the gate is the other factor, too, is held in units of its clip value, or would move
      by more than a fiftieth of its range.
    """
    gate = operator.inputs[place]
    if operator.inputs[0] is operator.inputs[1] or gate.in_clip_units:
        return None
    cases = occurring or all_pairs(operator.inputs)
    choices = [_choice(operator, place, factor, cases) for factor in (_MORE_FACTORS if occurring else _FACTORS)]
    errors = np.array([_error(gate, choice) for choice in choices])
    changed = [not choice.keeps_integers for choice in choices]
    for index in np.lexsort((errors, changed)):
        if errors[index] > _LARGEST_ERROR:
            continue
        chosen = with_gate(operator, choices[index])
        if evidence(chosen, occurring and _with_codes(cases, choices[index]))[1] is None:
            return choices[index]
    return None


def with_gate(operator: Multiply, choice: GateChoice) -> Multiply:
    """The product with another gate."""
    gate = operator.inputs[choice.place]
    return _with_input(operator, choice.place, chosen_tensor(gate, choice.codes, choice.factor, gate.name, gate.layer))


def _with_input(operator: Multiply, place: int, x: Tensor) -> Multiply:
    inputs = list(operator.inputs)
    inputs[place] = x
    return dataclasses.replace(operator, inputs=tuple(inputs))


def _with_codes(cases: Sequence[np.ndarray], choice: GateChoice) -> list[np.ndarray]:
    return [choice.codes[codes + 128] if place == choice.place else codes for place, codes in enumerate(cases)]


def _choice(operator: Multiply, place: int, factor: float, cases: Sequence[np.ndarray]) -> GateChoice:
    """Each integer becomes the nearest one that is portable at this scale."""
    gate = operator.inputs[place]
    scaled = _with_input(operator, place, chosen_tensor(gate, _CODES, factor, gate.name, gate.layer))
    bad = cases[place][products_part(scaled, cases)]
    if not len(bad):
        return GateChoice(place, _CODES, float(factor))
    kept = np.setdiff1d(gate.codes, bad)
    wanted, levels = _CODES - gate.zero_point, (kept - gate.zero_point) * factor
    return GateChoice(place, kept[np.abs(levels - wanted[:, None]).argmin(1)], float(factor))


def _error(gate: Tensor, choice: GateChoice) -> float:
    codes = gate.codes
    moved = (choice.codes[codes + 128] - gate.zero_point) * choice.factor - (codes - gate.zero_point)
    return float(np.sqrt(np.mean(moved**2))) / max(gate.highest - gate.lowest, 1)


def gate_choices(plan: Plan) -> dict[str, GateChoice]:
    """For each call of the model that multiplies two tensors, and on which runtimes part, the choice for its gate."""
    together, found = occurring_together(plan), {}
    for operator in plan.operators:
        occurring = together.get(operator)
        if isinstance(operator, Multiply) and operator.layers and evidence(operator, occurring)[1] is not None:
            found[operator.layers[0]] = portable_gate(operator, gate_of(operator, plan), occurring)
    return {call: choice for call, choice in found.items() if choice is not None}
