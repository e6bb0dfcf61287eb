"""Data for the inputs of a model, in the forms that `fit` takes."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from satkeras._compat import keras

InputData: TypeAlias = np.ndarray | Sequence[Any] | Mapping[str, Any] | tf.data.Dataset


def input_arrays(data: InputData, model: keras.Model, argument: str) -> list[np.ndarray]:
    """All examples, as an array for each input of a model; their shapes and values are not looked at.

    Args:
      data: an array; a list or dict of arrays for several inputs; or a finite `tf.data.Dataset` of batches of these,
        alone or first in a tuple `(x, y, ...)`, as `fit` takes it.
      model: whose inputs they are for.
      argument: what errors call the data.

    Raises:
      TypeError: the data is none of these.
      ValueError: it has not an array for each input, as many examples in each, or any at all; or a dataset has no end.
    """
    # As in `fit`: a model of a dict of inputs is fed by its keys, any other by its input layers' names.
    names = sorted(model.input) if isinstance(model.input, Mapping) else list(model.input_names)  # pyright: ignore
    if isinstance(data, tf.data.Dataset):
        arrays = _from_dataset(data, names, argument)
    else:
        arrays = _each_input(data, names, argument)
    counts = {len(values) for values in arrays if values.ndim}
    if len(counts) > 1:
        raise ValueError(f"{argument} must have as many examples for each input. Received: {sorted(counts)}")
    if 0 in counts:
        raise ValueError(f"{argument} must hold at least one example. Received: shape {arrays[0].shape}")
    return arrays


def _from_dataset(dataset: tf.data.Dataset, names: list[str], argument: str) -> list[np.ndarray]:
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(f"{argument} must end. Received: a dataset that repeats forever; use .take(n)")
    batches = [
        _each_input(element[0] if isinstance(element, tuple) else element, names, argument)
        for element in dataset.as_numpy_iterator()
    ]
    if not batches:
        raise ValueError(f"{argument} must hold at least one example. Received: an empty dataset")
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def _each_input(data, names: list[str], argument: str) -> list[np.ndarray]:
    if isinstance(data, Mapping):
        if set(data) != set(names):
            raise ValueError(f"{argument} must have the keys {names}. Received: {sorted(data)}")
        return [np.asarray(data[name]) for name in names]
    if isinstance(data, (list, tuple)):
        if len(data) != len(names):
            raise ValueError(
                f"{argument} must be an array for each of the {len(names)} inputs {names}, without labels. Received: "
                f"{len(data)} (np.stack makes one array of images)"
            )
        return [np.asarray(values) for values in data]
    if not hasattr(data, "__array__"):
        raise TypeError(
            f"{argument} must be an array, a list or dict of arrays, or a tf.data.Dataset. "
            f"Received: {type(data).__name__}"
        )
    if len(names) > 1:
        raise ValueError(f"{argument} must be an array for each of the {len(names)} inputs {names}. Received: one")
    return [np.asarray(data)]
