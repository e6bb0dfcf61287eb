"""The staircases of Quantization Networks: what inference computes, and the sigmoids that training puts in its place.

To read, and to test `kernels.soft_staircase` against, which training runs.
"""

import tensorflow as tf


def staircase(x, alpha, beta, thresholds, levels):
    """`alpha (Y_0 + sum_i s_i [beta x >= b_i])`, `s_i = Y_i - Y_(i-1)` (Quantization Networks, eq. 5).

    Differentiable in alpha only; between its thresholds a staircase is flat.

    Args:
      x: float32 tensor.
      alpha: scalar, the real size of a level.
      beta: scalar, the scale of the input.
      thresholds: float32 (n,), the b_i.
      levels: the n + 1 integers Y_0 < Y_1 < ...
    """
    scaled = tf.stop_gradient(beta * x)
    total = tf.fill(tf.shape(scaled), float(levels[0]))
    for height, threshold in heights_and_thresholds(levels, thresholds):
        total += height * tf.cast(scaled >= threshold, tf.float32)
    return alpha * total


def soft_staircase(x, alpha, beta, thresholds, temperature, levels):
    """`alpha (Y_0 + sum_i s_i sigma(T (beta x - b_i)))` (Quantization Networks, eq. 7).

    Differentiable in x, alpha, beta and thresholds. The paper's printed eq. 8, 10 and 11 are not its derivatives.

    Args:
      x: float32 tensor.
      alpha: scalar, the real size of a level.
      beta: scalar, the scale of the input.
      thresholds: float32 (n,), the b_i.
      temperature: positive scalar T.
      levels: the n + 1 integers Y_0 < Y_1 < ...
    """
    total = float(levels[0])
    for height, threshold in heights_and_thresholds(levels, thresholds):
        total += height * tf.sigmoid(temperature * (beta * x - threshold))
    return alpha * total


def heights_and_thresholds(levels, thresholds):
    """`(s_i, b_i)` for each threshold of a staircase."""
    heights = [float(upper - lower) for lower, upper in zip(levels[:-1], levels[1:], strict=True)]
    return zip(heights, tf.unstack(thresholds, len(heights)), strict=True)
