"""On which grid a tensor of a quantized model is stored, found by walking up the graph to where it is quantized."""

import tensorflow as tf

from satkeras._compat import TfmotQuantizeWrapper, output_variables
from satkeras.models.layers import Kind, kind_of
from satkeras.quantizers import Quantizer
from satkeras.quantizers.int8 import activation_levels_in_int8, is_narrow_symmetric


def stored_step(call):
    """The real size of an integer step of a call's result, float64; None if it is not stored on a grid.

    Args:
      call: a Keras node.
    """
    found = _quantizer_of(call)
    return None if found is None else _step(*found)


def stored_grid(call):
    """The same with the int8 value that stands for 0.0: `(step, zero_point)` or None."""
    found = _quantizer_of(call)
    if found is None:
        return None
    quantizer, variables = found
    levels, zero_point = quantizer.levels, quantizer.zero_point
    if is_narrow_symmetric(levels, zero_point):  # stored around int8's zero
        return _step(quantizer, variables), 0
    return _step(quantizer, variables), activation_levels_in_int8(levels, zero_point).zero_point


def _quantizer_of(call):
    while kind_of(call) in (Kind.PASS, Kind.AVERAGE):
        call = call.parent_nodes[0]
    return output_variables(call.layer) if isinstance(call.layer, TfmotQuantizeWrapper) else None


def _step(quantizer: Quantizer, variables):
    return tf.cast(quantizer.scale(variables), tf.float64)
