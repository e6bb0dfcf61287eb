"""Batch norms' statistics of the trained weights, for those of weights that were there on the way."""

import collections

import numpy as np

from satkeras._compat import keras
from satkeras.calibration.data import InputData
from satkeras.calibration.ranges import call_node, is_correctable_norm, normalized, walk
from satkeras.calibration.sampling import Moments, moments_of
from satkeras.calibration.units import checked_batches
from satkeras.models.checks import require_quantized
from satkeras.models.graph import read_graph


def reestimate_batch_norm(model: keras.Model, data: InputData, batch_size: int | None = None) -> None:
    """Gives every batch norm the mean and variance that its input has over some data, for the model as it is now.

    What training leaves are moving averages over its last steps. At few bits integers flip until the end, and the
    averages are those of networks that are no more. Here each batch normalizes by its own statistics, as in training,
    and the mean and variance of all batches together are kept. All else stays as it is: weights, ranges, clip values,
    and batch norms that are frozen. Call it after training, before the model is evaluated and exported.

    Args:
      model: what `quantize_model` returned, trained.
      data: inputs as the `calibration_data` of `quantize_model`, all of which are read, once: a few thousand training
        images, augmented as they were in training.
      batch_size: how many make a batch; up to 256, as memory allows, by default.

    Raises:
      TypeError, ValueError: not such a model; the data is of no known form, empty, of another shape, or in other units;
        there is no batch norm that is not frozen.

    References:
      Wu and Johnson 2021, Rethinking "Batch" in BatchNorm (arXiv:2105.07576): PreciseBN. For quantized networks: Nagel
      et al. 2022 (arXiv:2203.11086).
    """
    require_quantized(model, "reestimate_batch_norm")
    graph = read_graph(model)
    norms = [node for node in graph.nodes if is_correctable_norm(node)]
    if not norms:
        raise ValueError(
            f"reestimate_batch_norm needs a model with batch norms that are not frozen. Received: {model.name!r}, "
            "which has none"
        )
    found: dict[keras.layers.Layer, Moments] = collections.defaultdict(Moments)

    def compute(node, inputs):
        if not is_correctable_norm(node):
            return call_node(node, inputs)
        mean, variance, count = moments_of(inputs[0])
        found[node.layer].add(mean, variance, count)
        return normalized(node.layer, inputs[0], mean, variance)

    for batch in checked_batches(model, data, batch_size):
        for _ in walk(graph, batch, compute):
            pass
    for norm, moments in found.items():
        norm.moving_mean.assign(np.float32(moments.mean))
        norm.moving_variance.assign(np.float32(moments.variance))
