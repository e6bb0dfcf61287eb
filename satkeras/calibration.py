"""Starting a quantized model where a pretrained float model is: its weights' transform undone, its ranges from data."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from satkeras._compat import keras, output_variables, weight_variables
from satkeras.graph import Graph, Node, read_graph
from satkeras.rewrite import has_quantizer, quantizes_tensor

CalibrationData: TypeAlias = np.ndarray | Sequence[Any] | Mapping[str, Any] | tf.data.Dataset

BATCH = 64


def calibration_inputs(data: CalibrationData, inputs: Sequence[Any], low: float, high: float) -> list:
    """Calibration data as an array for each input of a model.

    Args:
      data: an array; a list or dict of arrays for several inputs; or a finite `tf.data.Dataset` of batches of these,
        alone or first in a tuple `(x, y, ...)`, as `fit` takes it.
      inputs: the model's inputs.
      low: the smallest real value that the input's codes stand for.
      high: the largest.

    Raises:
      TypeError: the data is none of these.
      ValueError: it is empty, without end, of another shape, not numeric, has NaN, or lies outside `low` .. `high`.
    """
    arrays = _from_dataset(data, inputs) if isinstance(data, tf.data.Dataset) else _each_input(data, inputs)
    counts = {len(values) for values in arrays if values.ndim}
    if len(counts) > 1:
        raise ValueError(f"calibration_data must have as many examples for each input. Received: {sorted(counts)}")
    return [_checked(values, x, low, high) for values, x in zip(arrays, inputs, strict=True)]


def _from_dataset(dataset: tf.data.Dataset, inputs) -> list[np.ndarray]:
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError("calibration_data must end. Received: a dataset that repeats forever; use .take(n)")
    batches = [
        _each_input(element[0] if isinstance(element, tuple) else element, inputs)
        for element in dataset.as_numpy_iterator()
    ]
    if not batches:
        raise ValueError("calibration_data must hold at least one example. Received: an empty dataset")
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def _each_input(data, inputs) -> list[np.ndarray]:
    names = [x.node.layer.name for x in inputs]
    if isinstance(data, Mapping):
        if set(data) != set(names):
            raise ValueError(f"calibration_data must have the keys {names}. Received: {sorted(data)}")
        return [np.asarray(data[name]) for name in names]
    if len(inputs) > 1 or isinstance(data, (list, tuple)):
        if not isinstance(data, (list, tuple)) or len(data) != len(inputs):
            received = len(data) if isinstance(data, (list, tuple)) else type(data).__name__
            raise ValueError(
                f"calibration_data must be an array for each of the {len(inputs)} inputs {names}. Received: {received}"
            )
        return [np.asarray(values) for values in data]
    if not hasattr(data, "__array__"):
        raise TypeError(
            "calibration_data must be an array, a list or dict of arrays, or a tf.data.Dataset. "
            f"Received: {type(data).__name__}"
        )
    return [np.asarray(data)]


def _checked(values: np.ndarray, x, low: float, high: float) -> np.ndarray:
    shape = ", ".join(str(size) for size in x.shape[1:])
    if not (np.issubdtype(values.dtype, np.number) and not np.issubdtype(values.dtype, np.complexfloating)):
        raise ValueError(f"calibration_data must be real numbers. Received: dtype={values.dtype}")
    if values.ndim != len(x.shape) or any(
        size not in (None, given) for size, given in zip(x.shape[1:], values.shape[1:], strict=True)
    ):
        raise ValueError(f"calibration_data must have shape (n, {shape}). Received: shape {values.shape}")
    if not len(values):
        raise ValueError(f"calibration_data must hold at least one example. Received: shape {values.shape}")
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("calibration_data must be finite. Received: NaN or infinity")
    step = (high - low) / 255
    if values.min() < low - step or values.max() > high + step:
        raise ValueError(
            f"calibration_data must lie within input_range={(low, high)}. Received: values from {values.min():g} to "
            f"{values.max():g}"
        )
    return values


def calibrate_weights(model: keras.Model) -> None:
    """Sets the variables of the weight quantizers to suit the kernels."""
    for kernel, quantizer, variables in _kernels(model).values():
        quantizer.calibrate(kernel.numpy(), variables)


def undo_weight_transforms(model: keras.Model) -> None:
    """Sets every latent kernel, which is a pretrained one, so that the quantized kernel is as close to it as can be."""
    for kernel, quantizer, variables in _kernels(model).values():
        kernel.assign(quantizer.latent_of(kernel.numpy(), variables))


def carry_over_quantizer_variables(source: keras.Model, target: keras.Model) -> None:
    """Gives the weight quantizers of `target` the values of those that `source` has under the same names.

    From a clamped full-precision model: how its pretrained kernels were scaled.
    """
    known = _kernels(source)
    for name, (_, _, variables) in _kernels(target).items():
        _, _, values = known.get(name, (None, None, {}))
        for role in variables.keys() & values.keys():
            variables[role].assign(values[role])


def _kernels(model: keras.Model) -> dict[str, Any]:
    """The `weight_variables` of every layer that has them, by the layer's name."""
    found = {layer.name: weight_variables(layer) for layer in model.layers if has_quantizer(layer)}
    return {name: kernel for name, kernel in found.items() if kernel is not None}


def set_ranges(model: keras.Model, inputs: Sequence[np.ndarray], pretrained: keras.Model) -> None:
    """Sets the range of every quantized tensor, in the order they are computed, and corrects every batch norm.

    So each is set for what the quantizers before it make of the data. A batch norm's moving statistics take on the
    change from the pretrained model to the quantized one, seen on the data; they are not estimated anew, because a
    network that was trained on augmented images has statistics that no plain image shows.

    Args:
      model: a quantized model.
      inputs: for each input of the model, real values of shape (n, ...). All n are held in memory, layer after layer.
      pretrained: the model that it was made from.
    """
    graph = read_graph(model)
    waiting = {node: len(graph.consumers(node)) for node in graph.nodes}
    statistics = _statistics_in(pretrained, inputs)
    values: dict[Node, list] = {}
    given = dict(zip(graph.inputs, inputs, strict=True))
    for node in graph.nodes:
        if node in given:
            values[node] = _batches(given[node])
            continue
        parents = [values[parent] for parent in node.inputs]
        batches = parents[0] if len(parents) == 1 else [list(taken) for taken in zip(*parents, strict=True)]
        if quantizes_tensor(node.layer):
            quantizer, variables = output_variables(node.layer)
            quantizer.calibrate(np.concatenate([np.ravel(batch.numpy()) for batch in batches]), variables)
        if node.name in statistics and node.layer.trainable:
            _correct(node.layer, statistics[node.name], _statistics(batches))
        mode = {"training": False} if "training" in node.layer._call_spec.arg_names else {}
        values[node] = [node.layer(batch, **mode) for batch in batches]
        for parent in node.inputs:
            waiting[parent] -= 1
            if not waiting[parent]:
                values.pop(parent, None)


def taken_by(nodes: Sequence[Node], graph: Graph, inputs: Sequence[np.ndarray]) -> list[tuple[tf.Tensor, ...]]:
    """What each of some nodes takes, in inference, batch by batch.

    Args:
      nodes: of one input each.
      graph: the graph that they belong to, as it was read.
      inputs: for each input of the graph, real values of shape (n, ...).
    """
    taken = keras.Model([node.tensor for node in graph.inputs], [node.inputs[0].tensor for node in nodes])
    parts = [tf.nest.flatten(taken(list(batch), training=False)) for batch in zip(*map(_batches, inputs), strict=True)]
    return list(zip(*parts, strict=True))


def _batches(values: np.ndarray) -> list:
    return [tf.constant(values[at : at + BATCH]) for at in range(0, len(values), BATCH)]


def _statistics_in(model: keras.Model, inputs: Sequence[np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and variance, channel by channel, of what each batch norm of a model takes, by the batch norm's name."""
    graph = read_graph(model)
    norms = [node for node in graph.nodes if isinstance(node.layer, keras.layers.BatchNormalization)]
    if not norms:
        return {}
    return {
        node.name: _statistics(batches) for node, batches in zip(norms, taken_by(norms, graph, inputs), strict=True)
    }


def _statistics(batches) -> tuple[np.ndarray, np.ndarray]:
    values = np.concatenate([batch.numpy() for batch in batches])
    axes = tuple(range(values.ndim - 1))
    return values.mean(axes, np.float64), values.var(axes, np.float64)


def _correct(norm: keras.layers.BatchNormalization, before, after) -> None:
    """Moves the statistics as those of the data moved, when weights and inputs were quantized."""
    (old_mean, old_variance), (mean, variance) = before, after
    change = (variance + norm.epsilon) / (old_variance + norm.epsilon)
    norm.moving_mean.assign(norm.moving_mean + np.float32(mean - old_mean))
    norm.moving_variance.assign(norm.moving_variance * np.float32(change))
