"""Which integer each weight becomes: chosen by what its layer returns for data, not by the weight alone."""

import dataclasses

import numpy as np
import tensorflow as tf

from satkeras._compat import keras, weight_variables
from satkeras.models.graph import Node
from satkeras.models.insertion import has_quantizer
from satkeras.quantizers.quant_params import QuantParams
from satkeras.quantizers.staircases import StepQuantizer

POSITIONS = 2**15  # of images, that a layer's second moments are of
MOST_INPUTS = 2**13  # of one output; the second moments of more would take gigabytes, and minutes to invert
DAMPING = 0.01  # of the mean of their diagonal, as in the paper


def round_by_output(node: Node, x: tf.Tensor) -> None:
    """Moves the latent weights of a node's layer so that it returns for `x` what its unrounded weights would.

    Nearest rounding makes the error of every weight small by itself. Here the weights that read one input are rounded
    one after the other, and those that are left make up for the errors so far, as far as the inputs go together (GPTQ).
    Kernels on the levels of Quantization Networks, transposed ones and those whose outputs read more than 8,192 values
    are left alone, and so is what has no kernel.

    Args:
      node: of a quantized model.
      x: what it reads, as the layers before it make it.

    References:
      Frantar et al. 2023 (arXiv:2210.17323), algorithm 1, inputs by falling second moment.
    """
    if _has_even_kernel(node):
        rows = _rows(node.layer.layer, x)
        if rows.shape[-1] <= MOST_INPUTS:
            _choose(node.layer, rows)


def _has_even_kernel(node: Node) -> bool:
    """Whether a node has a kernel whose integers may be any of an even grid."""
    if not has_quantizer(node.layer) or weight_variables(node.layer) is None:
        return False
    _, quantizer, _ = weight_variables(node.layer)
    even = quantizer.num_bits is not None and not isinstance(quantizer, StepQuantizer)
    return even and not isinstance(node.layer.layer, keras.layers.Conv2DTranspose)


def _choose(wrapper, rows: np.ndarray) -> None:
    """Moves the latent weights of a layer that reads `rows` to the integers that are chosen."""
    latent, quantizer, variables = weight_variables(wrapper)
    params = quantizer.quant_params(variables, latent.numpy())
    weight = np.asarray(quantizer.unrounded(latent, variables), np.float64)
    steps = weight / np.asarray(params.dequantize(np.full(weight.shape, params.zero_point + 1)), np.float64)
    columns = steps.reshape(rows.shape[-1], len(rows), -1)
    unit = dataclasses.replace(params, scale=np.float32(1), axis=None)
    chosen = np.stack([integers_of(rows[i], columns[:, i], unit) for i in range(len(rows))], 1).reshape(weight.shape)
    changed = chosen != np.asarray(quantizer.integers(latent, variables))
    # The largest weight may be what the others are measured by.
    changed &= np.abs(latent.numpy()) < np.abs(latent.numpy()).max()
    moved = quantizer.latent_at(tf.constant(chosen, tf.float32), latent, variables)
    latent.assign(np.where(changed, moved, latent.numpy()))


def _rows(layer: keras.layers.Layer, x: tf.Tensor) -> np.ndarray:
    """What each output of a layer reads, (groups, positions, inputs): a depthwise convolution's groups are channels."""
    if isinstance(layer, keras.layers.Dense):
        flat = np.asarray(tf.reshape(x, (1, -1, x.shape[-1])))
    else:
        patches = tf.image.extract_patches(
            tf.cast(x, tf.float32),
            (1, *layer.kernel_size, 1),
            (1, *layer.strides, 1),
            (1, *layer.dilation_rate, 1),
            layer.padding.upper(),
        )
        flat = np.asarray(tf.reshape(patches, (1, -1, patches.shape[-1])))
    if flat.shape[1] > POSITIONS:
        flat = flat[:, np.random.default_rng(0).choice(flat.shape[1], POSITIONS, replace=False)]
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        flat = flat.reshape(flat.shape[1], -1, int(x.shape[-1])).transpose(2, 0, 1)
    return flat.astype(np.float64)


def integers_of(rows: np.ndarray, weights: np.ndarray, params: QuantParams) -> np.ndarray:
    """Integers for weights so that `rows @ integers` stays close to `rows @ weights`.

    Args:
      rows: inputs, shape (positions, n).
      weights: in steps of the grid, 0 at its zero point, shape (n, outputs).
      params: the grid, its scale 1.

    Returns:
      Levels of the grid, int32, in the shape of `weights`.
    """
    moments = rows.T @ rows / len(rows)
    size = len(moments)
    damped = moments + np.eye(size) * (DAMPING * np.trace(moments) / size + 1e-12)
    order = np.argsort(-np.diag(damped), kind="stable")
    upper = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T
    left, found = weights[order].copy(), np.empty(weights.shape, np.int32)
    for i in range(size):
        found[order[i]] = params.quantize(left[i])
        error = (left[i] - params.dequantize(found[order[i]])) / upper[i, i]
        left[i + 1 :] -= np.outer(upper[i, i + 1 :], error)
    return found
