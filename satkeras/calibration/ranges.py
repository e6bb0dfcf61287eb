"""Starting a quantized model where a pretrained float model is: its weights' transform undone, its ranges from data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from satkeras._compat import keras, output_variables, weight_variables
from satkeras.calibration.data import InputData, input_arrays
from satkeras.models.graph import Graph, Node, read_graph
from satkeras.models.insertion import has_quantizer, quantizes_tensor

BATCH = 64


def calibration_inputs(
    data: InputData, model: keras.Model, low: float, high: float, argument: str = "calibration_data"
) -> list[np.ndarray]:
    """Calibration data as an array for each input of a model.

    Args:
      data: as for `input_arrays`.
      model: whose inputs it is for.
      low: the real value of the input's code 0.
      high: that of code 255.
      argument: what errors call the data.

    Raises:
      TypeError: the data is of no known kind.
      ValueError: it is empty, without end, of another shape, not numeric, has NaN, or lies outside `low` .. `high`.
    """
    arrays = input_arrays(data, model, argument)
    return [_checked(values, x.shape, low, high, argument) for values, x in zip(arrays, model.inputs, strict=True)]


def _checked(values: np.ndarray, required, low: float, high: float, argument: str) -> np.ndarray:
    shape = ", ".join(str(size) for size in required[1:])
    if not (np.issubdtype(values.dtype, np.number) and not np.issubdtype(values.dtype, np.complexfloating)):
        raise ValueError(f"{argument} must be real numbers. Received: dtype={values.dtype}")
    if values.ndim != len(required) or any(
        size not in (None, received) for size, received in zip(required[1:], values.shape[1:], strict=True)
    ):
        raise ValueError(f"{argument} must have shape (n, {shape}). Received: shape {values.shape}")
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"{argument} must be finite. Received: NaN or infinity")
    step_size = (high - low) / 255
    if values.min() < low - step_size or values.max() > high + step_size:
        raise ValueError(
            f"{argument} must lie within input_range={(low, high)}. Received: values from {values.min():g} to "
            f"{values.max():g}"
        )
    return values


def calibrate_weights(model: keras.Model) -> None:
    """Sets the variables of the weight quantizers to suit the kernels."""
    for kernel, quantizer, variables in kernels_of(model).values():
        quantizer.calibrate(kernel.numpy(), variables)


def undo_weight_transforms(model: keras.Model) -> None:
    """Sets every latent kernel, which is a pretrained one, so that the quantized kernel is as close to it as can be."""
    for kernel, quantizer, variables in kernels_of(model).values():
        kernel.assign(quantizer.latent_of(kernel.numpy(), variables))


def carry_over_latent_weights(source: keras.Model, target: keras.Model) -> None:
    """Gives kernels and weight quantizers of `target` the latent kernel and variables of the same layer in `source`.

    From a clamped full-precision model to the next stage. A layer whose quantizer is of another class has another
    transform: it starts at the weights that `source` computes with.
    """
    known = kernels_of(source)
    for name, (latent, quantizer, variables) in kernels_of(target).items():
        trained, before, values = known.get(name, (None, None, {}))
        if type(before) is not type(quantizer):
            latent.assign(quantizer.latent_of(latent.numpy(), variables))
            continue
        latent.assign(trained)
        for shared in set(quantizer.declared_variables) & set(before.declared_variables):
            variables[shared.name].assign(values[shared.name])


def kernels_of(model: keras.Model) -> dict[str, Any]:
    """The `weight_variables` of every layer that has them, by the layer's name."""
    found = {layer.name: weight_variables(layer) for layer in model.layers if has_quantizer(layer)}
    return {name: kernel for name, kernel in found.items() if kernel is not None}


def set_ranges(model: keras.Model, inputs: Sequence[np.ndarray], pretrained: keras.Model) -> None:
    """Sets the range of every quantized tensor, in the order they are computed, and corrects every batch norm.

    So each range suits a tensor whose predecessors are quantized. To a batch norm's moving statistics the change is
    added that the data's statistics show from the pretrained model to the quantized one; they are not estimated anew,
    because a network that was trained on augmented images has statistics that no plain image shows. In a network that
    was never trained they are the data's: with those, training will normalize.

    Args:
      model: a quantized model.
      inputs: for each input of the model, real values of shape (n, ...). All n are held in memory, layer after layer.
      pretrained: the float model that was quantized.
    """
    graph = read_graph(model)
    consumers_left = {node: len(graph.consumers(node)) for node in graph.nodes}
    statistics, trained = _statistics_in(pretrained, inputs), _was_trained(pretrained)
    values: dict[Node, list] = {}
    arrays = dict(zip(graph.inputs, inputs, strict=True))
    for node in graph.nodes:
        if node in arrays:
            values[node] = _batches(arrays[node])
            continue
        parents = [values[parent] for parent in node.inputs]
        batches = parents[0] if len(parents) == 1 else [list(batch) for batch in zip(*parents, strict=True)]
        if quantizes_tensor(node.layer):
            quantizer, variables = output_variables(node.layer)
            quantizer.calibrate(np.concatenate([np.ravel(batch.numpy()) for batch in batches]), variables)
        if node.name in statistics and node.layer.trainable:
            if trained:
                _correct(node.layer, statistics[node.name], _relative_statistics(node.layer, batches))
            else:
                _set(node.layer, *_statistics(batches))
        mode = {"training": False} if "training" in node.layer._call_spec.arg_names else {}
        values[node] = [node.layer(batch, **mode) for batch in batches]
        for parent in node.inputs:
            consumers_left[parent] -= 1
            if not consumers_left[parent]:
                values.pop(parent, None)


def inputs_of(nodes: Sequence[Node], graph: Graph, inputs: Sequence[np.ndarray]) -> list[tuple[tf.Tensor, ...]]:
    """The input tensors of some nodes, in inference, batch by batch.

    Args:
      nodes: of one input each.
      graph: the graph that they belong to, as it was read.
      inputs: for each input of the graph, real values of shape (n, ...).
    """
    probe = keras.Model([node.tensor for node in graph.inputs], [node.inputs[0].tensor for node in nodes])
    parts = [tf.nest.flatten(probe(list(batch), training=False)) for batch in zip(*map(_batches, inputs), strict=True)]
    return list(zip(*parts, strict=True))


def _batches(values: np.ndarray) -> list:
    return [tf.constant(values[at : at + BATCH]) for at in range(0, len(values), BATCH)]


def _statistics_in(model: keras.Model, inputs: Sequence[np.ndarray]) -> dict[str, tuple[np.ndarray, ...]]:
    """The `_relative_statistics` of the input of each batch norm of a model, by the batch norm's name."""
    graph = read_graph(model)
    norms = [node for node in graph.nodes if isinstance(node.layer, keras.layers.BatchNormalization)]
    if not norms:
        return {}
    return {
        node.name: _relative_statistics(node.layer, batches)
        for node, batches in zip(norms, inputs_of(norms, graph, inputs), strict=True)
    }


def _relative_statistics(norm: keras.layers.BatchNormalization, batches) -> tuple[np.ndarray, ...]:
    """Mean and variance of a batch norm's input, by channel, and its epsilon, in units of the moving statistics.

    In these units they do not change where the channels of a kernel are scaled, and the moving statistics with them.
    """
    mean, variance = _statistics(batches)
    unit = norm.moving_variance.numpy() + norm.epsilon
    return (mean - norm.moving_mean.numpy()) / np.sqrt(unit), variance / unit, norm.epsilon / unit


def _statistics(batches) -> tuple[np.ndarray, np.ndarray]:
    values = np.concatenate([batch.numpy() for batch in batches])
    axes = tuple(range(values.ndim - 1))
    return values.mean(axes, np.float64), values.var(axes, np.float64)


def _was_trained(model: keras.Model) -> bool:
    """Whether any batch norm of a model is not as Keras makes it."""
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    return any(
        np.any(norm.moving_mean.numpy() != 0)
        or np.any(norm.moving_variance.numpy() != 1)
        or (norm.scale and np.ptp(norm.gamma.numpy()) != 0)
        or (norm.center and np.ptp(norm.beta.numpy()) != 0)
        for norm in norms
    )


def _set(norm: keras.layers.BatchNormalization, mean, variance) -> None:
    norm.moving_mean.assign(np.float32(mean))
    norm.moving_variance.assign(np.float32(variance))


def _correct(norm: keras.layers.BatchNormalization, before, after) -> None:
    """Moves the statistics as those of the data moved, when weights and inputs were quantized."""
    (old_mean, old_variance, epsilon), (mean, variance, _) = before, after
    unit = norm.moving_variance.numpy() + norm.epsilon
    change = (variance + epsilon) / (old_variance + epsilon)
    moved = norm.moving_mean + np.float32(np.sqrt(unit) * (mean - old_mean))
    _set(norm, moved, np.maximum(unit * change - norm.epsilon, 0))
