"""A pass over a plan: inputs on the grid that a device's own preprocessing reaches, their codes as they were.

Coral's tools feed `(pixel - 128) / 128`, quantized by the input's scale and zero point, which is the pixel's code where
these are 1/128 and 128. A model that was trained on another range gets an input of that grid, and the integers behind
it stay what they are: an ADD of a constant moves the zero point, and the kernels that read it take over the scale.
"""

import dataclasses

import numpy as np

from tflite_export.operators import AddConstant, LinearOperator, MultiplyConstant, Pad, Reshape
from tflite_export.plan import Operator, Plan, Tensor

SCALE = np.float32(1 / 128)
_IMAGE_RANK = 3


def for_mean_and_std_of_128(plan: Plan) -> Plan:
    """The plan with every image input on the scale 1/128 and the zero point 128 of uint8; its integers are the same."""
    for place, x in enumerate(plan.inputs):
        if len(x.shape) == _IMAGE_RANK and (x.scale, x.zero_point) != (SCALE, 0):
            plan = _with_input_on_that_grid(plan, place)
    return plan


def _with_input_on_that_grid(plan: Plan, place: int) -> Plan:
    x = plan.inputs[place]
    # What the training model takes for a code stays what it is.
    given = dataclasses.replace(x, scale=SCALE, zero_point=0, offset=x.offset - x.step * x.zero_point)
    operators: list[Operator] = []
    moved = {x: given}  # tensors of the plan with the new scale, by what they were
    if x.zero_point:
        moved[x] = dataclasses.replace(x, name=f"{x.name}/moved", scale=SCALE, layer=None, offset=0.0)
        operators.append(AddConstant((given,), moved[x], 0, SCALE, x.zero_point, "none"))
    restored: dict[Tensor, Tensor] = {}  # the same on their own scale again
    for operator in plan.operators:
        if not any(one in moved for one in (*operator.inputs, *operator.sources)):
            operators.append(operator)
        elif isinstance(operator, LinearOperator):
            ratio = x.scale / SCALE
            operators.append(dataclasses.replace(_reading(operator, moved), weight_scale=operator.weight_scale * ratio))
        elif isinstance(operator, (Pad, Reshape)) and operator.output not in plan.outputs:
            moved[operator.output] = dataclasses.replace(operator.output, scale=SCALE)
            operators.append(dataclasses.replace(_reading(operator, moved), output=moved[operator.output]))
        else:
            for one in operator.inputs:
                if one in moved and one not in restored:
                    restored[one] = dataclasses.replace(one, name=f"{one.name}/restored", layer=None, offset=0.0)
                    factor = one.scale / SCALE / np.float32(127)
                    operators.append(MultiplyConstant((moved[one],), restored[one], 127, factor, 0, "none"))
            operators.append(_reading(operator, {**moved, **restored}))
    inputs = tuple(given if one is x else one for one in plan.inputs)
    return dataclasses.replace(plan, inputs=inputs, operators=tuple(operators))


def _reading(operator: Operator, other: dict[Tensor, Tensor]) -> Operator:
    """The operator, with other tensors for some that it reads."""
    inputs, sources = (tuple(other.get(x, x) for x in group) for group in (operator.inputs, operator.sources))
    return dataclasses.replace(operator, inputs=inputs, sources=sources)
