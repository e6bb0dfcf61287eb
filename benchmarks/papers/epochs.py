"""Training with whole epochs compiled: on a GPU a loop of Python around single steps leaves the card idle."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tf_keras as keras

# From images, labels and logits to the loss of each example.
Loss = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
MARGIN, GREY = 4, 128


def with_labels(images, labels, logits):
    """The cross-entropy with the labels."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


def moved(images, seed):
    """Images shifted by up to four pixels each way and mirrored, at random.

    Args:
      images: uint8 (n, h, w, channels).
      seed: two integers.

    Returns:
      float32 tensor of the same shape.
    """
    count, height, width, _ = images.shape
    shifts = tf.random.stateless_uniform((count, 2), seed, 0, 2 * MARGIN + 1, tf.int32)
    mirrored = tf.random.stateless_uniform((count, 1), seed + 1) < 0.5
    rows, columns = shifts[:, :1] + tf.range(height), shifts[:, 1:] + tf.range(width)
    columns = tf.where(mirrored, columns[:, ::-1], columns)
    margins = ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0))
    padded = tf.pad(images, margins, constant_values=tf.constant(GREY, images.dtype))
    shifted = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.cast(tf.gather(shifted, columns, axis=2, batch_dims=1), tf.float32)


class CompiledEpochs:
    """Trains a model by epochs, each one call of one compiled function; on a GPU by XLA.

    Args:
      model: from images 0 .. 255 to logits.
      optimizer: which trains it.
      loss: of each example.
      data: uint8 images and their labels.
      batch_size: what an epoch's last images do not fill is left out.
    """

    def __init__(self, model: keras.Model, optimizer, loss: Loss, data: tuple[np.ndarray, np.ndarray], batch_size: int):
        images, labels = (tf.constant(values) for values in (data[0], data[1].astype(np.int64)))
        variables = model.trainable_variables
        optimizer.build(variables)
        self.steps = len(images) // batch_size

        def train_step(chosen, seed):
            batch, answers = moved(tf.gather(images, chosen), seed), tf.gather(labels, chosen)
            with tf.GradientTape() as tape:
                losses = loss(batch, answers, model(batch, training=True))
                total = tf.reduce_mean(losses) + sum(model.losses)
            optimizer.apply_gradients(zip(tape.gradient(total, variables), variables, strict=True))
            return total

        def epoch(order, seed):
            total = tf.constant(0.0)
            for step in tf.range(self.steps):
                total += train_step(order[step], tf.stack([seed, 2 * step]))
            return total / self.steps

        self._epoch = tf.function(epoch, jit_compile=bool(tf.config.list_physical_devices("GPU")))
        self._order = lambda rng: rng.permutation(len(images))[: self.steps * batch_size].reshape(
            self.steps, batch_size
        )

    def train(self, seed: int, epoch: int) -> float:
        """One epoch, always the same for one seed and number; returns the mean loss of its steps."""
        order = self._order(np.random.default_rng((seed, epoch)))
        return float(self._epoch(tf.constant(order, tf.int32), tf.constant(1000 * seed + epoch, tf.int32)))


class Accuracy:
    """The share of images whose largest logit is the label's; its function is traced once.

    Args:
      model: from images 0 .. 255 to logits.
      data: uint8 images and their labels.
    """

    def __init__(self, model: keras.Model, data: tuple[np.ndarray, np.ndarray], batch_size: int = 500):
        self._images, self._labels = data
        self._batch_size = batch_size
        self._answer = tf.function(lambda batch: tf.argmax(model(tf.cast(batch, tf.float32), training=False), -1))

    def __call__(self) -> float:
        starts = range(0, len(self._images), self._batch_size)
        # TF32, which GPUs train in by default, has ten bits of mantissa: too few to tell which integer a sum rounds to.
        before = tf.config.experimental.tensor_float_32_execution_enabled()
        tf.config.experimental.enable_tensor_float_32_execution(False)
        try:
            found = [self._answer(self._images[start : start + self._batch_size]).numpy() for start in starts]
        finally:
            tf.config.experimental.enable_tensor_float_32_execution(before)
        return float(np.mean(np.concatenate(found) == self._labels))
