"""Distillation (Hinton et al. 2015, arXiv:1503.02531): a network learns the answers of another beside the labels."""

from collections.abc import Callable

import tensorflow as tf
import tf_keras as keras

from satkeras.formulas.distillation import soft_cross_entropy

# Keeps the logarithm of a probability that float32 rounded to zero finite.
SMALLEST_PROBABILITY = 1e-7


def targets(labels, answers):
    """What `loss` and `accuracy` compare with: one-hot labels and a teacher's answers, (n, 2, classes).

    Args:
      labels: integers (n,).
      answers: probabilities (n, classes).
    """
    return tf.stack([tf.one_hot(labels, answers.shape[-1]), answers], axis=1)


def lessons(batches: tf.data.Dataset, test_labels, teacher: Callable, classes: int):
    """Batches of images and `targets`, and the `targets` of the test images, whose answers no teacher is asked for.

    Args:
      batches: of images and labels.
      test_labels: integers (n,).
      teacher: from images to probabilities (n, classes).
      classes: how many there are.
    """
    taught = batches.map(lambda images, labels: (images, targets(labels, teacher(images))))
    return taught, targets(test_labels, tf.one_hot(test_labels, classes))


def loss(temperature: float):
    """The mean of two cross-entropies: with the labels, and, times T^2, with the teacher's answers softened by T."""

    def distillation(targets, answers):
        labels, teacher = tf.unstack(targets, axis=1)
        with_labels = keras.losses.categorical_crossentropy(labels, answers)
        of_teacher, own = (tf.math.log(probabilities + SMALLEST_PROBABILITY) for probabilities in (teacher, answers))
        return (with_labels + soft_cross_entropy(of_teacher, own, temperature)) / 2

    return distillation


def accuracy(targets, answers):
    """That of the labels."""
    return keras.metrics.categorical_accuracy(targets[:, 0], answers)
