"""Data for the inputs of a model, in the forms that `fit` and TFLite's converter take, batch by batch."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from satkeras._compat import call_of, keras
from satkeras.calibration.input_ranges import input_keys

InputData: TypeAlias = (
    np.ndarray
    | Sequence[Any]
    | Mapping[str, Any]
    | tf.data.Dataset
    | keras.utils.Sequence
    | Callable[[], Iterator[Any]]
)
FORMS = (
    "an array, a list or dict of arrays for several inputs, a tf.data.Dataset, a Keras Sequence, or a function that "
    "returns an iterator (a representative_dataset)"
)


def input_arrays(data: InputData, model: keras.Model, argument: str) -> list[np.ndarray]:
    """All examples, as an array for each input of a model; their shapes and values are not looked at.

    Args:
      data: as for `Batches`.
      model: whose inputs they are for.
      argument: what errors call the data.

    Raises:
      TypeError: the data is of no known form.
      ValueError: it has not an array for each input, as many examples in each, or any at all; or a dataset has no end.
    """
    parts = list(Batches(data, model, argument).parts())
    return parts[0] if len(parts) == 1 else [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """Examples for a model's inputs, read anew each time that they are iterated over; no more than a batch is held.

    Attributes:
      data: an array; a list or dict of arrays for several inputs; a finite `tf.data.Dataset`, batched or not; a Keras
        `Sequence`; or a function without arguments that returns an iterator, as `representative_dataset` does. Elements
        of the last three are arrays, lists or dicts of them, or tuples `(x, y, ...)` as for `fit`, of which x is taken.
        Dicts have the names of the inputs or, for a model of a dict of inputs, its keys.
      model: whose inputs they are for.
      argument: what errors call the data.
      size: how many examples make a batch; the last may have fewer.
    """

    data: InputData
    model: keras.Model
    argument: str
    size: int = 64

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        """For each batch, an array for each input."""
        waiting: list[list[np.ndarray]] = []
        for part in self.parts():
            waiting.append(part)
            if sum(len(arrays[0]) for arrays in waiting) < self.size:
                continue
            joined = [np.concatenate(arrays) for arrays in zip(*waiting, strict=True)]
            whole = len(joined[0]) // self.size * self.size
            for start in range(0, whole, self.size):
                yield [values[start : start + self.size] for values in joined]
            waiting = [[values[whole:] for values in joined]] if whole < len(joined[0]) else []
        if waiting:
            yield [np.concatenate(arrays) for arrays in zip(*waiting, strict=True)]

    @property
    def count(self) -> int | None:
        """How many batches there are, None where only reading tells."""
        if isinstance(self.data, tf.data.Dataset) or callable(self.data) or _is_sequence(self.data):
            return None
        arrays = self._each_input(self.data)
        return math.ceil(len(arrays[0]) / self.size)

    def parts(self) -> Iterator[list[np.ndarray]]:
        """The examples in the pieces in which they come."""
        found = False
        for element in self._elements():
            arrays = self._each_input(element)
            counts = {len(values) for values in arrays if values.ndim}
            if len(counts) > 1:
                raise ValueError(
                    f"{self.argument} must have as many examples for each input. Received: {sorted(counts)}"
                )
            if 0 in counts:
                raise ValueError(f"{self.argument} must hold at least one example. Received: shape {arrays[0].shape}")
            found = True
            yield arrays
        if not found:
            raise ValueError(f"{self.argument} must hold at least one example. Received: an empty dataset")

    def _elements(self) -> Iterator:
        data = self.data
        if isinstance(data, tf.data.Dataset):
            if data.cardinality() == tf.data.INFINITE_CARDINALITY:
                raise ValueError(f"{self.argument} must end. Received: a dataset that repeats forever; use .take(n)")
            batched = data if self._is_batched(data) else data.batch(self.size)
            yield from map(_without_labels, batched.as_numpy_iterator())
        elif _is_sequence(data):
            yield from (_without_labels(data[index]) for index in range(len(data)))  # pyright: ignore
        elif callable(data) and not hasattr(data, "__array__"):
            yield from map(_without_labels, data())
        else:
            yield data

    def _is_batched(self, dataset: tf.data.Dataset) -> bool:
        spec = tf.nest.flatten(_without_labels(dataset.element_spec))
        ranks = [len(x.shape) for x in self.model.inputs]
        return [one.shape.rank for one in spec] != [rank - 1 for rank in ranks]

    def _each_input(self, data) -> list[np.ndarray]:
        names = input_keys(self.model)
        if isinstance(data, Mapping):
            layers = [call_of(x).layer.name for x in self.model.inputs]
            for known in (names, layers):
                if set(data) == set(known):
                    return [np.asarray(data[name]) for name in known]
            raise ValueError(f"{self.argument} must have the keys {names}. Received: {sorted(data)}")
        if isinstance(data, (list, tuple)):
            if len(names) == 1 and len(data) > 1 and self._are_single_examples(data):
                return [np.concatenate([np.asarray(one) for one in data])]
            if len(data) != len(names):
                raise ValueError(
                    f"{self.argument} must be an array for each of the {len(names)} inputs {names}, without labels. "
                    f"Received: {len(data)} (np.stack makes one array of images)"
                )
            return [np.asarray(values) for values in data]
        if not hasattr(data, "__array__"):
            way_out = "; pass the function that makes the iterator" if isinstance(data, Iterator) else ""
            raise TypeError(f"{self.argument} must be {FORMS}. Received: {type(data).__name__}{way_out}")
        if len(names) > 1:
            raise ValueError(
                f"{self.argument} must be an array for each of the {len(names)} inputs {names}. Received: one"
            )
        return [np.asarray(data)]

    def _are_single_examples(self, data) -> bool:
        rank = len(self.model.inputs[0].shape)
        return all(np.ndim(one) == rank and np.shape(one)[0] == 1 for one in data)


def _without_labels(element):
    return element[0] if isinstance(element, tuple) else element


def _is_sequence(data) -> bool:
    """Whether data is a Keras `Sequence` or, as Keras 3 calls it, a `PyDataset`."""
    return isinstance(data, keras.utils.Sequence) or any(cls.__name__ == "PyDataset" for cls in type(data).__mro__)
