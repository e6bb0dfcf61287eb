"""A pass over a plan: functions of one tensor that runtimes compute in several ways become tables, which none does."""

import dataclasses
import itertools

import numpy as np

from satkeras.quantizers.int8 import narrowed
from tflite_export.operators import AddConstant, Lookup
from tflite_export.plan import Operator, Plan
from tflite_export.portability.plans import evidence

_CODES = np.arange(-128, 128)


def with_tables(plan: Plan) -> Plan:
    """The plan with a table in the place of each function on which runtimes may part.

    A table holds the integers that XNNPACK computes, for each of the 256; so plan and table are one function there.
    TOSA's converter takes the zero point from the integers that a table is asked for: where there is one, an ADD that
    rounds nothing brings the same integers to the zero point 0 first.
    """
    return _with_tables_for(plan, Operator)


def with_centred_tables(plan: Plan) -> Plan:
    """The same of the tables alone that the plan has already."""
    return _with_tables_for(plan, Lookup)


def _with_tables_for(plan: Plan, kind: type[Operator]) -> Plan:
    operators = itertools.chain.from_iterable(_as_table(operator, kind) for operator in plan.operators)
    return dataclasses.replace(plan, operators=tuple(operators))


def _as_table(operator: Operator, kind: type[Operator]) -> tuple[Operator, ...]:
    is_function = isinstance(operator, kind) and operator.elementwise and len(operator.inputs) == 1
    if not is_function or evidence(operator)[1] is None:
        return (operator,)
    (x,) = operator.inputs
    occurring = np.clip(_CODES, x.lowest, x.highest).astype(np.float32)
    table = narrowed(np.asarray(operator.compute([occurring], "xnnpack")), np.int8)
    covered = {"layers": operator.layers, "sources": operator.sources or operator.inputs}
    if not x.zero_point:
        return (Lookup((x,), operator.output, table, **covered),)
    centred = dataclasses.replace(x, name=f"{operator.output.name}/centred", zero_point=0, layer=None)
    move = AddConstant((x,), centred, x.zero_point, x.scale, 0, "none")
    return move, Lookup((centred,), operator.output, table, **covered)
