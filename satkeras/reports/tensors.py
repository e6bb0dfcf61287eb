"""The integers of a quantized model's tensors, on data."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from satkeras._compat import keras, output_variables
from satkeras.models.checks import require_quantized
from satkeras.models.graph import read_graph
from satkeras.models.insertion import quantizes_tensor
from satkeras.quantizers.quant_params import QuantParams
from satkeras.reports.summary import clip_value


@dataclasses.dataclass(frozen=True)
class TensorIntegers:
    """What a batch makes of one quantized tensor.

    Attributes:
      alpha: the largest value that is not clipped, in the tensor's units.
      clipped_share: share of its elements beyond the clip; those that a ReLU makes zero are not.
      counts: how many elements lie on each level of its grid, by the level's integer, in rising order.
    """

    alpha: float
    clipped_share: float
    counts: dict[int, int]


def tensor_integers(model: keras.Model, data: np.ndarray | Sequence[np.ndarray]) -> dict[str, TensorIntegers]:
    """Clips and integers of every quantized tensor of a model, by the name of the layer that quantizes it.

    Args:
      model: what `quantize_model` returned.
      data: a batch of its inputs, an array or a list of one for each input; they go through the model in one piece.

    Returns:
      Tensors in full precision, or that have seen no data, are absent.

    Raises:
      TypeError: not a tf_keras model; ValueError: one without satkeras quantizers.
    """
    require_quantized(model, "tensor_integers")
    nodes = [node for node in read_graph(model).nodes if quantizes_tensor(node.layer)]
    probe = keras.Model(model.inputs, [[node.inputs[0].tensor, node.tensor] for node in nodes])
    measured = {
        node.layer.name: measure(node.layer, *(np.asarray(value, np.float32) for value in values))
        for node, values in zip(nodes, probe(data, training=False), strict=True)
    }
    return {name: found for name, found in measured.items() if found is not None}


def measure(layer: keras.layers.Layer, before: np.ndarray, after: np.ndarray) -> TensorIntegers | None:
    """One tensor, before its quantizer and after it; None where it has no integers, or values that are not finite.

    Args:
      layer: one for which `quantizes_tensor` holds.
      before: what it received.
      after: what it returned.
    """
    alpha = clip_value(layer)
    if alpha is None or not math.isfinite(alpha) or not np.isfinite(before).all():
        return None
    quantizer, variables = output_variables(layer)
    params = quantizer.quant_params({name: value.numpy() for name, value in variables.items()})
    unrounded = before / params.scale + params.zero_point
    # The same slack as in QuantParams.integers_of: what float32 rounding explains.
    beyond = unrounded > params.qmax + 1e-3
    if params.dequantize(params.qmin) != 0:  # a grid from zero on is a ReLU, too, and what that cuts off is no loss
        beyond |= unrounded < params.qmin - 1e-3
    return TensorIntegers(alpha, float(beyond.mean()), level_counts(params.quantize(after), params))


def level_counts(integers: np.ndarray, params: QuantParams) -> dict[int, int]:
    """How often each level of a grid occurs, by its integer, in rising order."""
    levels = range(params.qmin, params.qmax + 1, params.spacing)
    counts = np.bincount((integers.ravel() - params.qmin) // params.spacing, minlength=len(levels))
    return dict(zip(levels, counts.tolist(), strict=True))
