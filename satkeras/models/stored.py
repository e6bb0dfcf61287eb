"""On which grid a tensor of a quantized model is stored, found by walking up the graph to where it is quantized."""

import tensorflow as tf

from satkeras._compat import TfmotQuantizeWrapper, first_call, float32_variables, output_variables
from satkeras.models.inference import rounds
from satkeras.models.layers import Kind, fixed_grid, kind_of
from satkeras.quantizers.int8 import activation_levels_in_int8, is_narrow_symmetric


def grid_to_round_to(layer, training):
    """`(step, zero_point)`, float32, of the grid that a layer's input is on; None where there is none or it trains."""
    call = first_call(layer)
    if call is None or not rounds(layer, training):
        return None
    with float32_variables():
        grid = stored_grid(call.parent_nodes[0])
    return None if grid is None else tuple(tf.cast(number, tf.float32) for number in grid)


def stored_step(call):
    """The real size of an integer step of a call's result, float64; None if it is not stored on a grid.

    Args:
      call: a Keras node.
    """
    grid = stored_grid(call)
    return None if grid is None else grid[0]


def stored_grid(call):
    """The same with the int8 value that stands for 0.0: `(step, zero_point)` or None."""
    while kind_of(call) in (Kind.PASS, Kind.ON_GRID):
        call = call.parent_nodes[0]
    if kind_of(call) is Kind.FIXED:
        step, zero_point = fixed_grid(call.layer)
        return tf.constant(step, tf.float64), zero_point
    found = output_variables(call.layer) if isinstance(call.layer, TfmotQuantizeWrapper) else None
    if found is None:
        return None
    quantizer, variables = found
    step = tf.cast(quantizer.scale(variables), tf.float64)
    levels, zero_point = quantizer.levels, quantizer.zero_point
    if is_narrow_symmetric(levels, zero_point):  # stored around int8's zero
        return step, 0
    return step, activation_levels_in_int8(levels, zero_point).zero_point
