"""Channels of one size: what a kernel with one grid for all of them needs, and what a batch norm leaves free."""

import numpy as np

from satkeras._compat import keras, weight_variables
from satkeras.models.graph import Graph, Node, read_graph
from satkeras.models.insertion import has_quantizer

# By how much, of itself, the variance that a batch norm divides by may change in training, where its epsilon stays.
TOLERANCE = 0.1


def equalize_channels(model: keras.Model) -> None:
    """Gives all output channels of a kernel the same largest magnitude, where only a batch norm reads them.

    On one grid for the whole kernel, which ends at its largest weight, a channel ten times smaller than the largest has
    little left at 4 bits. A batch norm undoes the size of a channel, so the size can be chosen: with moving statistics
    that are scaled alike the model computes what it did. So it does in training, but for the batch norm's epsilon,
    which bounds the factors. The kernel's root mean square stays, and with it how far one training step turns it.

    Kernels whose quantizers have other grids stay as they are: k-means finds one for the channels as they come.

    Args:
      model: with wrapped layers, its kernels still those of the pretrained model.

    References:
      Nagel et al., ICCV 2019 (arXiv:1906.04721), section 4.1, cross-layer equalization: here between a kernel and its
      own batch norm, which needs no second kernel and no ReLU.
    """
    graph = read_graph(model)
    for node in graph.nodes:
        norm = _own_norm(node, graph)
        if norm is not None:
            kernel, *_ = weight_variables(node.layer)
            channels = kernel.numpy().reshape(-1, norm.moving_mean.shape[0])  # a depthwise kernel's are (h, w, n, 1)
            factors = _factors(channels, norm)
            kernel.assign((channels * factors).reshape(kernel.shape))
            inner = node.layer.layer
            if inner.use_bias:
                inner.bias.assign(inner.bias * factors)
            norm.moving_mean.assign(norm.moving_mean * factors)
            norm.moving_variance.assign((norm.moving_variance + norm.epsilon) * factors**2 - norm.epsilon)


def _own_norm(node: Node, graph: Graph) -> keras.layers.BatchNormalization | None:
    """The batch norm that alone reads the output of a kernel to equalize, both called once; None if there is none."""
    found = weight_variables(node.layer) if has_quantizer(node.layer) else None
    transposed = found is not None and isinstance(node.layer.layer, keras.layers.Conv2DTranspose)
    if found is None or transposed or not found[1].ends_at_largest:
        return None
    readers = graph.consumers(node)  # what the model returns is read too: by the quantizer of that output
    if len(readers) != 1 or not isinstance(readers[0].layer, keras.layers.BatchNormalization):
        return None
    norm = readers[0].layer
    called = [call.layer for call in graph.nodes]
    return norm if called.count(node.layer) == called.count(norm) == 1 else None


def _factors(channels: np.ndarray, norm: keras.layers.BatchNormalization) -> np.ndarray:
    """What to multiply each channel by; `channels` are the kernel's columns."""
    channels = channels.astype(np.float64)
    largest = np.abs(channels).max(0)
    factors = 1 / np.where(largest > 0, largest, 1)
    # In training the batch norm divides a channel times f by f^2 v + e, which is to be f^2 (v + e).
    share = norm.epsilon / (norm.moving_variance.numpy() + norm.epsilon)
    free = share <= TOLERANCE
    lowest = np.sqrt(np.maximum(share / (share + TOLERANCE), share))
    highest = np.sqrt(np.where(free, np.inf, share / np.where(free, 1, share - TOLERANCE)))
    before, after = (np.square(values[:, free]).sum() for values in (channels, channels * factors))
    return np.clip(factors * np.sqrt(before / after) if after else factors, lowest, highest).astype(np.float32)
