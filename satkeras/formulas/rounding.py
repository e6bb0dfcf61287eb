"""Rounding, and gradients that are not the derivative: passed straight through, or scaled."""

import tensorflow as tf


def straight_through(value, source):
    """Returns `value` itself; its gradient goes to `source`, as if `value` were `source`."""
    return tf.stop_gradient(value) + (source - tf.stop_gradient(source))


def round_ste(x):
    """The nearest integer, ties to even; the gradient passes straight through (DoReFa, eq. 5)."""
    return straight_through(tf.round(x), x)


def at_least_ste(x, lowest):
    """`max(x, lowest)`; straight-through gradient, so that an x driven below `lowest` can come back."""
    return straight_through(tf.maximum(x, lowest), x)


def scale_gradient(x, factor):
    """Returns x itself; its gradient is multiplied by `factor` (LSQ, arXiv:1902.08153, appendix A)."""
    return tf.stop_gradient(x) + factor * (x - tf.stop_gradient(x))


def step_size(largest, levels):
    """`largest / qmax`, the step size of a grid: the same float32 number eagerly, in graphs and in files.

    By way of float64, because TensorFlow's graph optimizer multiplies by a constant's reciprocal instead of dividing by
    it. In float32 that is often the number next to it, and a bias between two steps then rounds to the other one.

    Args:
      largest: float32 tensor, the value of qmax.
      levels: `(qmin, qmax)`, the integers of the grid.
    """
    return tf.cast(tf.cast(largest, tf.float64) / levels[1], tf.float32)
