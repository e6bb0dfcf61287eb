"""Rules of layers that add, subtract or multiply two stored tensors."""

import functools

from satkeras.models.graph import Node
from tflite_export.lowering.closing import close_add
from tflite_export.lowering.grids import require_true_scale
from tflite_export.lowering.pending import Pending, Problem
from tflite_export.lowering.requantize import LARGEST_MULTIPLIER, SMALLEST_PRODUCT_RATIO
from tflite_export.operators import Multiply, Subtract
from tflite_export.plan import Activation, Tensor


def add(walk, node: Node, layer) -> Pending:
    """ADD."""
    return _of_two(walk, node, close_add)


def subtract(walk, node: Node, layer) -> Pending:
    """SUB."""
    return _of_two(walk, node, functools.partial(close_add, kind=Subtract))


def multiply(walk, node: Node, layer) -> Pending:
    """MUL."""
    return _of_two(walk, node, _close_multiply)


def _of_two(walk, node: Node, close) -> Pending:
    if len(node.inputs) != 2:
        raise Problem(f"needs two inputs, gets {len(node.inputs)}: add it before quantize_model, not after")
    return Pending(tuple(walk.stored(parent) for parent in node.inputs), (node.name,), close, rescales=False)


def _close_multiply(walk, pending: Pending, output: Tensor, activation: Activation) -> Tensor:
    for x in pending.inputs:
        require_true_scale(x, "MUL")
    operator = Multiply(pending.inputs, output, layers=pending.layers, activation=activation)
    if not SMALLEST_PRODUCT_RATIO <= operator.multiplier < LARGEST_MULTIPLIER:
        raise Problem(
            f"the product of its inputs' steps is {operator.multiplier:g} output steps; MUL takes 2^-16 .. 2^8. Train "
            "on, or calibrate anew: a range is far from what the tensors hold"
        )
    return walk.append(operator)
