"""A pass over a plan: functions of one tensor that runtimes compute in several ways become tables, which none does."""

import dataclasses

import numpy as np

from satkeras.quantizers.int8 import narrowed
from tflite_export.operators import HardSwish, LeakyRelu, Logistic, Lookup, MultiplyConstant, Tanh
from tflite_export.plan import Operator, Plan
from tflite_export.portability.plans import evidence

_FUNCTIONS = (HardSwish, LeakyRelu, Logistic, MultiplyConstant, Tanh)
_CODES = np.arange(-128, 128)


def with_tables(plan: Plan) -> Plan:
    """The plan with a table in the place of each function on which runtimes may part.

    A table holds the integers that XNNPACK computes, for each of the 256; so plan and table are one function there.
    """
    return dataclasses.replace(plan, operators=tuple(_as_table(operator) for operator in plan.operators))


def _as_table(operator: Operator) -> Operator:
    if not isinstance(operator, _FUNCTIONS) or evidence(operator)[1] is None:
        return operator
    (x,) = operator.inputs
    if x.zero_point:  # a table is not portable either
        return operator
    occurring = np.clip(_CODES, x.lowest, x.highest).astype(np.float32)
    table = narrowed(np.asarray(operator.compute([occurring], "xnnpack")), np.int8)
    return Lookup(operator.inputs, operator.output, table, layers=operator.layers, sources=operator.sources)
