"""Calibration data with the checks that `fit` makes, batch by batch."""

import dataclasses
import time
import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

from satkeras._compat import call_of, keras
from satkeras.calibration.data import Batches, InputData
from satkeras.models.graph import read_graph
from satkeras.models.insertion import has_quantizer
from satkeras.quantizers import InputQuantizer

QUIET_SECONDS = 2.0  # what takes longer shows how far it is


@dataclasses.dataclass(frozen=True, eq=False)
class CheckedBatches:
    """The batches of some data as float32, each of them in the units of the model's inputs.

    Attributes:
      batches: the data.
      quantizers: the quantizer of each input, by the name of its InputLayer.
      verbose: whether reading that takes seconds shows a progress bar.
    """

    batches: Batches
    quantizers: Mapping[str, InputQuantizer]
    verbose: bool = False

    def of_size(self, size: int) -> "CheckedBatches":
        """The same data in batches of another size."""
        return dataclasses.replace(self, batches=dataclasses.replace(self.batches, size=size))

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        """For each batch, a float32 array for each input.

        Raises:
          TypeError, ValueError: the data is of no known form, empty, of another shape, not numeric, has NaN, or is in
            other units than the inputs.
        """
        model, argument = self.batches.model, self.batches.argument
        strays, started, bar = 0, time.monotonic(), None
        for done, batch in enumerate(self.batches, 1):
            checked = []
            for values, x in zip(batch, model.inputs, strict=True):
                quantizer = self.quantizers[call_of(x).layer.name]
                checked.append(_checked(values, x.shape, quantizer, argument))
                strays += int(quantizer.strays_of(checked[-1]))
            yield checked
            slow = done != self.batches.count and time.monotonic() - started > QUIET_SECONDS
            if self.verbose and (bar or slow):
                bar = bar or keras.utils.Progbar(self.batches.count, unit_name="batch")
                bar.update(done)
        if strays:
            warnings.warn(f"{argument} has {strays} values outside the input range; they are clipped", stacklevel=2)


def checked_batches(model: keras.Model, data: InputData, size: int | None = None) -> CheckedBatches:
    """The batches of some data for a quantized model, in the units of its inputs.

    Args:
      model: what `quantize_model` returned.
      data: as `calibration_data`; errors call it "data".
      size: how many examples make a batch; as many as memory likes by default.
    """
    graph = read_graph(model)
    quantizers = {
        node.inputs[0].layer.name: node.layer.quantize_config.quantizer
        for node in graph.nodes
        if has_quantizer(node.layer) and isinstance(node.layer.quantize_config.quantizer, InputQuantizer)
    }
    return CheckedBatches(Batches(data, model, "data", size or batch_size_for(model)), quantizers)


def _checked(values: np.ndarray, required, quantizer: InputQuantizer, argument: str) -> np.ndarray:
    shape = ", ".join(str(size) for size in required[1:])
    if not (np.issubdtype(values.dtype, np.number) and not np.issubdtype(values.dtype, np.complexfloating)):
        raise ValueError(f"{argument} must be real numbers. Received: dtype={values.dtype}")
    if values.ndim != len(required) or any(
        size not in (None, received) for size, received in zip(required[1:], values.shape[1:], strict=True)
    ):
        raise ValueError(f"{argument} must have shape (n, {shape}). Received: shape {values.shape}")
    values = values.astype(np.float32)
    problem = quantizer.problem_of(values)
    if problem is not None:
        raise ValueError(f"{argument} is not what fit would take. {problem}")
    return values


def batch_size_for(model: keras.Model, most: int = 256, values: int = 2**24) -> int:
    """How many examples make a batch whose largest tensor has not more than some number of values."""
    sizes = [
        int(np.prod([size or 1 for size in tensor.shape[1:]]))
        for layer in model.layers
        for tensor in tf.nest.flatten(layer.output)
    ]
    return int(np.clip(values // max(sizes), 1, most))
