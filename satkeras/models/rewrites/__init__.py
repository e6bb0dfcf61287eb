"""What each Keras class, and each TensorFlow operator, is made of: `REWRITES` and `OPERATORS`, a row each.

A row is a function of a `Call` and of the call's own arguments, symbolic tensors of the new model among them. It
returns the result as core layers compute it, or raises `Refused`.
"""

from collections.abc import Callable

from satkeras._compat import keras
from satkeras.models.followed import source_line
from satkeras.models.graph import Node
from satkeras.models.rewrites import elementwise, images, inputs, linear, movement, one_dimension, three_dimensions
from satkeras.models.rewrites.call import Call, Refused
from satkeras.models.unsupported import OPERATORS_OUT

__all__ = ["OPERATORS", "REWRITES", "Call", "Refused", "rewrite_of"]

REWRITES: dict[type, Callable] = {
    **linear.REWRITES,
    **one_dimension.REWRITES,
    **three_dimensions.REWRITES,
    **inputs.REWRITES,
    **elementwise.REWRITES,
}
OPERATORS: dict[str, Callable] = {**elementwise.OPERATORS, **movement.OPERATORS, **images.OPERATORS, **linear.OPERATORS}


def rewrite_of(node: Node) -> Callable | None:
    """The row of a node's layer; None if the layer is no other layers' sum."""
    symbol = getattr(node.layer, "symbol", None)
    if symbol is not None:
        return OPERATORS.get(symbol, _unknown_operator)
    if isinstance(node.layer, keras.layers.Lambda):
        return _unknown_lambda
    return REWRITES.get(type(node.layer))


def _unknown_operator(call: Call, *args, **kwargs):
    symbol = call.layer.symbol
    raise Refused(
        f"no rule for the operator tf.{symbol}; {OPERATORS_OUT.get(symbol, 'use a layer, or run it behind the file')}"
    )


def _unknown_lambda(call: Call, *args, **kwargs):
    raise Refused(
        "its function is none of TensorFlow operators that Keras can follow: "
        f"{source_line(call.layer.function)}. Write it with functions such as tf.nn.relu and slices"
    )
