"""What happens to the grids while a model trains, for TensorBoard."""

import os

import numpy as np
import tensorflow as tf

from satkeras._compat import keras, output_variables, weight_variables
from satkeras.models.checks import require_quantized, student_of
from satkeras.models.graph import read_graph
from satkeras.models.insertion import has_quantizer, quantizer_variables, quantizes_tensor
from satkeras.reports.integers import integer_weight
from satkeras.reports.summary import clip_value
from satkeras.reports.tensors import level_counts, measure


class TensorBoardQuantization(keras.callbacks.Callback):
    """Logs clip values, clipped shares and histograms of integers, layer by layer, to TensorBoard.

        q.fit(images, labels, callbacks=[satkeras.TensorBoardQuantization("logs", images[:100])])

    At the end of every `frequency`-th epoch, from the first on, with the epoch as TensorBoard's step:

      quant_<layer>/integers              histogram of the kernel's integers, a bucket for each level
      quant_<layer>/step, scale, offset   the learned variables of its quantizer that are a number, by their role
      quant_<tensor>_output/alpha         the largest value that is not clipped: PACT's alpha, or the moving range
      quant_<tensor>_output/step, ...     the learned variables of its quantizer
      quant_<tensor>_output/clipped_share share of the tensor's elements beyond the clip   } if there are data
      quant_<tensor>_output/integers      histogram of the tensor's integers               }

    and the same for `quant_<layer>_input`, where a tensor branches off a stream. Nothing runs between the batches. What
    has no integers (full precision, NaN) is left out. Only TensorFlow is needed to write, `tensorboard` to look.

    Args:
      log_dir: folder of the event files; created when training starts.
      data: a batch of inputs for the model, an array or a list of one for each input; they go through the model in
        one piece. None: no data.
      frequency: epochs from one log to the next.

    Raises:
      TypeError, ValueError: a bad argument; when training starts, a model that `quantize_model` did not return, data
        that do not fit it, or a folder that cannot be created.
    """

    def __init__(self, log_dir: str | os.PathLike, data=None, frequency: int = 1):
        super().__init__()
        if isinstance(frequency, bool) or not isinstance(frequency, int) or frequency < 1:
            raise ValueError(f"frequency must be a number of epochs, 1 or more. Received: frequency={frequency!r}")
        if isinstance(data, tf.data.Dataset):
            raise TypeError("data must be one batch of inputs. Received: a dataset; pass a batch of it, without labels")
        self.log_dir = os.fspath(log_dir)
        self.data = None if data is None else [tf.convert_to_tensor(x) for x in _as_list(data)]
        self.frequency = frequency
        self._writer = None
        self._tensors: list[keras.layers.Layer] = []
        self._probe = None

    def set_model(self, model):
        """Checks the model that is going to train, and the data against it."""
        model = student_of(model)
        require_quantized(model, type(self).__name__)
        super().set_model(model)
        graph = read_graph(model)
        nodes = [node for node in graph.nodes if quantizes_tensor(node.layer)]
        self._tensors = [node.layer for node in nodes]
        if self.data is not None:
            _require_inputs(self.data, [node.shape for node in graph.inputs])
            # Each tensor before its quantizer and after it.
            self._probe = keras.Model(model.inputs, [[node.inputs[0].tensor, node.tensor] for node in nodes])

    def on_train_begin(self, logs=None):
        """Opens the event file, so that a folder that cannot be written stops the training before it starts."""
        self._close()  # of a training that an error ended
        try:
            tf.io.gfile.makedirs(self.log_dir)
            self._writer = tf.summary.create_file_writer(self.log_dir)
        except tf.errors.OpError as error:
            raise ValueError(
                f"log_dir must be a folder that can be created and written. Received: {self.log_dir} ({error.message})"
            ) from error

    def on_epoch_end(self, epoch, logs=None):
        """Logs, if it is the epoch's turn."""
        if epoch % self.frequency:
            return
        with self._writer.as_default(step=epoch):
            for layer in filter(has_quantizer, self.model.layers):
                _log_learned(layer)
                if not quantizes_tensor(layer):
                    _log_kernel(layer)
            for layer in self._tensors:
                alpha = clip_value(layer)
                if alpha is not None:
                    _write_scalar(f"{layer.name}/alpha", alpha)
            if self._probe is not None:
                for layer, values in zip(self._tensors, self._probe(self.data, training=False), strict=True):
                    _log_tensor(layer, *(np.asarray(value, np.float32) for value in values))
        self._writer.flush()

    def on_train_end(self, logs=None):
        """Closes the event file."""
        self._close()

    def _close(self):
        if self._writer is not None:
            self._writer.close()
        self._writer = None


def _as_list(data) -> list:
    return list(data) if isinstance(data, (list, tuple)) else [data]


def _require_inputs(data: list[tf.Tensor], shapes: list[tuple[int | None, ...]]) -> None:
    fits = len(data) == len(shapes) and all(
        x.shape.rank and x.shape[0] and x.shape[1:].is_compatible_with(shape)
        for x, shape in zip(data, shapes, strict=True)
    )
    if not fits:
        wanted, received = [("n", *shape) for shape in shapes], [tuple(x.shape) for x in data]
        raise ValueError(f"data must be a batch of the model's inputs, of shapes {wanted}. Received: {received}")


def _log_learned(layer) -> None:
    for declared, variable in quantizer_variables(layer):
        # A clip value is logged as alpha, like those that are not learned.
        if declared.learned and not declared.shape and declared.role != "clip":
            _write_scalar(f"{layer.name}/{declared.role}", variable)


def _log_kernel(layer) -> None:
    latent, quantizer, _ = weight_variables(layer)
    if quantizer.num_bits is not None and np.isfinite(latent.numpy()).all():
        weight = integer_weight(layer)
        _write_histogram(f"{layer.name}/integers", level_counts(weight.integers, weight.params), quantizer.spacing)


def _log_tensor(layer, before: np.ndarray, after: np.ndarray) -> None:
    found = measure(layer, before, after)
    if found is not None:
        _write_scalar(f"{layer.name}/clipped_share", found.clipped_share)
        _write_histogram(f"{layer.name}/integers", found.counts, output_variables(layer)[0].spacing)


# In the formats of TensorBoard's plugins, as its own tf.summary.scalar and .histogram write them. Those come with the
# tensorboard package, which TensorFlow 2.21 no longer brings, and their buckets do not fall on integers.


def _write_scalar(tag: str, value) -> None:
    tf.summary.write(tag, tf.constant(value, tf.float32), metadata=_metadata("scalars", "DATA_CLASS_SCALAR"))


def _write_histogram(tag: str, counts: dict[int, int], spacing: int) -> None:
    """Rows of (left edge, right edge, count), a row for each level of the grid."""
    levels, half = np.array(list(counts)), spacing / 2
    rows = np.stack([levels - half, levels + half, list(counts.values())], axis=1)
    tf.summary.write(tag, tf.constant(rows, tf.float64), metadata=_metadata("histograms", "DATA_CLASS_TENSOR"))


def _metadata(plugin: str, data_class: str):
    return tf.compat.v1.SummaryMetadata(plugin_data={"plugin_name": plugin}, data_class=data_class)
