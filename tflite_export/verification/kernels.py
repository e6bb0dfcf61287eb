"""The kernels and biases of a file against the training model's own, without the plan's integers between them."""

from collections.abc import Iterator

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from satkeras._compat import keras, weight_variables
from satkeras.models.channel_scale import ChannelScale
from satkeras.models.chosen_levels import ChosenLevels
from satkeras.models.core import Mean
from satkeras.models.graph import Node, read_graph
from satkeras.models.insertion import has_quantizer
from tflite_export.file.reader import read_constant
from tflite_export.operators import LinearOperator
from tflite_export.plan import Plan, Tensor

# In int8 steps: what separates a product of float32 numbers from the float64 one, for 127 steps.
CLOSE = 1e-3


def kernel_problems(model: keras.Model, plan: Plan, file: schema.ModelT) -> list[tuple[str, str]]:
    """Where a kernel or bias that the file holds is not the training model's, times its batch norms' factors.

    Args:
      model: the quantized model.
      plan: says which operator computes which layers.
      file: what was read from it.

    Returns:
      `(layer, reason)` pairs.
    """
    nodes = {node.name: node for node in read_graph(model).nodes}
    stored = _constants(file)
    problems = []
    for operator in plan.operators:
        if isinstance(operator, LinearOperator) and operator.layers:
            layers = [nodes[name] for name in operator.layers]
            problems += [(operator.name, reason) for reason in _problems(operator, layers, stored)]
    return problems


def _constants(model: schema.ModelT) -> dict[str, tuple]:
    tensors = model.subgraphs[0].tensors
    return {
        tensor.name.decode(): (model, tensor) for tensor in tensors if model.buffers[tensor.buffer].data is not None
    }


def _problems(operator: LinearOperator, layers: list[Node], stored) -> Iterator[str]:
    kernel_of_file, bias_of_file = (
        read_constant(*stored[constant.name]) if constant.name in stored else None for constant in operator.constants()
    )
    if kernel_of_file is None:
        yield "the file has no such kernel"
        return
    (x,), output = operator.inputs, operator.output
    expected, bias, factor = _folded(layers, x, len(operator.bias))
    # From the file's units to the training model's: the weights make up for what tensors are divided by.
    unit = (float(x.scale) / x.step) * (output.step / float(output.scale)) * kernel_of_file.scale
    integers = np.moveaxis(kernel_of_file.values, kernel_of_file.axis, -1).reshape(-1, len(factor))
    if kernel_of_file.zero_point.any():
        yield "its kernel has a zero point"
    varying = np.ones(len(factor), bool)
    varying[list(operator.constant_channels)] = False
    shrunk = np.ones(len(factor))
    if operator.saturating_channels:
        shrunk, comparable = _shrunk(operator, expected, factor, unit, integers)
        varying &= comparable
    expected = _grown(expected, integers.size // len(factor))
    # float32 is enough for 127 steps and a tolerance of a thousandth, and half the memory.
    off = expected.reshape(-1, len(factor)) * (factor / unit / shrunk).astype(np.float32) - integers
    off = np.abs(off[:, varying], out=off[:, varying]).max(initial=0)
    if not off < CLOSE:
        yield f"its kernel in the file is {off:g} int8 steps from the training model's quantized kernel"
    if bias_of_file is not None:
        steps = shrunk * bias_of_file.scale * (output.step / float(output.scale))
        # Where it is large, the float32 scale's own rounding counts.
        off = np.abs(bias_of_file.values - bias / steps) - 1e-6 * np.abs(bias) / steps
        # Packed weights have wider steps, to which the bias is rounded from the narrower ones.
        allowed = 0.5 + (0.1 if operator.bits < 8 else CLOSE)
        if not off[varying].max(initial=0) < allowed:
            yield f"its bias in the file is {off[varying].max():g} steps from the training model's"


def _grown(expected: np.ndarray, size: int) -> np.ndarray:
    """A 1x1 kernel as the first of four places where the file holds a 2x2 one, the others zeros (see `gpu_safe`)."""
    if expected.shape[:2] != (1, 1) or size != 4 * expected[..., 0].size:
        return expected
    return np.pad(expected, ((0, 1), (0, 1), (0, 0), (0, 0)))


def _shrunk(operator: LinearOperator, expected, factor, unit, integers):
    """By how much the model's steps are larger than the file's, in channels whose every sum but 0 is clipped.

    Returns:
      For each channel that number, and whether it can be told: it cannot where all weights are 0, and is not accepted
      where it is below 1, or where a step of the file's sums does not reach over the whole output.
    """
    model = np.abs(expected.reshape(integers.shape)).max(0)
    file = np.abs(integers).max(0)
    shrunk = np.ones(len(factor))
    chosen = np.zeros(len(factor), bool)
    chosen[list(operator.saturating_channels)] = True
    known = chosen & (file > 0) & (model > 0)
    shrunk[known] = (model * np.abs(factor))[known] / (file * unit)[known]
    accepted = (shrunk >= 1 - CLOSE) & (operator.multiplier >= 255)
    return np.where(known & accepted, shrunk, 1.0), known | ~chosen


def _folded(layers: list[Node], x: Tensor, channels: int):
    """The quantized kernel of layers that read `x`, the bias with the batch norms', their factor for each channel."""
    # A mean weighs every place alike; what has no kernel at all multiplies by 1.
    places = x.shape[:-1] if isinstance(layers[0].layer, Mean) else (1,)
    kernel, bias, factor = np.full((*places, 1, channels), 1 / np.prod(places)), 0.0, 1.0
    for node in layers:
        inner = node.layer.layer if has_quantizer(node.layer) else node.layer
        weight = weight_variables(node.layer) if has_quantizer(node.layer) else None
        if weight is not None:
            latent, quantizer, variables = weight
            kernel = np.asarray(quantizer(latent, False, variables))
            if isinstance(inner, keras.layers.Conv2DTranspose):
                kernel = kernel.swapaxes(2, 3)
            bias = inner.bias.numpy().astype(np.float64) if inner.use_bias else 0.0
        elif isinstance(inner, keras.layers.Rescaling):
            bias, factor = bias * inner.scale + inner.offset, factor * inner.scale
        elif isinstance(inner, ChannelScale):
            bias, factor = bias * inner.factor.numpy() + inner.offset.numpy(), factor * inner.factor.numpy()
        elif isinstance(inner, ChosenLevels):
            bias, factor = bias * inner.factor.numpy(), factor * inner.factor.numpy()
        elif isinstance(inner, keras.layers.BatchNormalization):
            gamma = inner.gamma.numpy().astype(np.float64) if inner.scale else 1.0
            beta = inner.beta.numpy().astype(np.float64) if inner.center else 0.0
            scale = gamma / np.sqrt(inner.moving_variance.numpy().astype(np.float64) + inner.epsilon)
            bias = (bias - inner.moving_mean.numpy()) * scale + beta
            factor = factor * scale
    ones = np.ones(channels)
    return kernel, bias * ones, factor * ones
