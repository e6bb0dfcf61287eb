"""Rules of functions that no operator of their own computes: a table of what the layer makes of each integer."""

import functools

import numpy as np

from satkeras.models.graph import Node
from satkeras.quantizers.int8 import narrowed
from tflite_export.lowering.pending import Pending, Problem
from tflite_export.operators import Lookup
from tflite_export.plan import Activation, Tensor


def look_up(walk, node: Node, layer) -> Pending:
    """CAST, ADD and GATHER."""
    close = functools.partial(_close, layer)
    return Pending((walk.stored(node.inputs[0]),), (node.name,), close, rescales=False)


def _close(layer, walk, pending: Pending, output: Tensor, activation: Activation) -> Tensor:
    (x,) = pending.inputs
    reals = np.float32(x.step) * (np.arange(-128, 128) - x.zero_point).astype(np.float32)
    values = np.asarray(layer(reals[None]), np.float64).ravel()
    occurring = slice(x.lowest + 128, x.highest + 129)
    if not np.isfinite(values[occurring]).all():
        raise Problem("makes infinity or NaN of some values that its input takes: clip them before it")
    levels = np.floor(np.nan_to_num(values) / output.step + 0.5) + output.zero_point
    table = narrowed(np.clip(levels, output.lowest, output.highest), np.int8)
    return walk.append(Lookup(pending.inputs, output, table, layers=pending.layers))
