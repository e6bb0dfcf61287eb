"""The formulas of Quantization Networks: a staircase in unit steps, and in sigmoids with their gradients.

All compute in float32 and work eagerly, in graphs and under XLA.
"""

from functools import partial

import tensorflow as tf


def unit_steps(x, alpha, beta, thresholds, levels):
    """A staircase: `alpha (Y_0 + sum_i s_i [beta x >= b_i])`, `s_i = Y_i - Y_(i-1)` (Quantization Networks, eq. 5).

    Differentiable in alpha only; the steps are flat.

    Args:
      x: float32 tensor.
      alpha: scalar, the real size of a level.
      beta: scalar, the scale of the input.
      thresholds: float32 (n,), the b_i.
      levels: the n + 1 integers Y_0 < Y_1 < ...
    """
    scaled = tf.stop_gradient(beta * x)
    total = tf.fill(tf.shape(scaled), float(levels[0]))
    for height, threshold in _steps(thresholds, levels):
        total += height * tf.cast(scaled >= threshold, tf.float32)
    return alpha * total


def soft_steps(x, alpha, beta, thresholds, temperature, levels, gradient_temperature=None):
    """The staircase with sigmoids for steps: `y = alpha (Y_0 + sum_i s_i sigma(T (beta x - b_i)))` (eq. 7).

    Gradients, g being the incoming one, `d_i = sigma(1 - sigma)` at `T (beta x - b_i)` and `D = sum_i s_i d_i`:

      dx     = g alpha beta T D              dalpha = sum(g y / alpha)
      dbeta  = sum(g alpha T x D)            db_i   = -alpha T s_i sum(g d_i)

    These are the derivatives of the formula; the paper's printed eq. 8, 10 and 11 are not. Only x and y are kept for
    the backward pass, which computes the sigmoids anew.

    Args:
      x: float32 tensor.
      alpha: positive scalar, the real size of a level.
      beta: scalar, the scale of the input.
      thresholds: float32 (n,), the b_i.
      temperature: positive scalar T; not differentiated.
      levels: the n + 1 integers Y_0 < Y_1 < ...
      gradient_temperature: where given, dx, dbeta and db_i are those at `min(T, gradient_temperature)`, a wider slope
        that reaches the values between the steps of a high temperature.
    """

    @tf.custom_gradient
    def forward(x, alpha, beta, thresholds):
        y = _sigmoids(x, alpha, beta, thresholds, temperature, levels)

        def backward(g):
            return soft_steps_gradients(g, x, y, alpha, beta, thresholds, temperature, levels, gradient_temperature)

        return y, backward

    return forward(x, alpha, beta, thresholds)


def soft_steps_gradients(
    g, x, y, alpha, beta, thresholds, temperature, levels, gradient_temperature=None, learn_thresholds=True
):
    """The gradients of `soft_steps` for x, alpha, beta and thresholds, from that of its result y.

    Args:
      g: the gradient of y.
      learn_thresholds: False for zeros as that of the thresholds. A branch of a graph computes even what nobody asks
        for, and keeps g, x and y until it has.
    """
    slope = temperature if gradient_temperature is None else tf.minimum(temperature, gradient_temperature)
    given = g, x, alpha, beta, thresholds, slope
    dx = _through_sigmoids(*given, levels=levels)
    dthresholds = _to_thresholds(*given, levels=levels) if learn_thresholds else tf.zeros_like(thresholds)
    return dx, tf.reduce_sum(g * y) / alpha, tf.reduce_sum(dx * x) / beta, dthresholds


# Compiled, each is one pass over the tensor; as operators of their own the n sigmoids are some 10 n.
_one_pass = partial(tf.function, jit_compile=True, autograph=False)


@_one_pass
def _sigmoids(x, alpha, beta, thresholds, temperature, levels):
    total = float(levels[0])
    for height, threshold in _steps(thresholds, levels):
        total += height * tf.sigmoid(temperature * (beta * x - threshold))
    return alpha * total


@_one_pass
def _through_sigmoids(g, x, alpha, beta, thresholds, temperature, levels):
    steepness = 0.0
    for height, threshold in _steps(thresholds, levels):
        steepness += height * _sigmoid_derivative(temperature * (beta * x - threshold))
    return g * steepness * (alpha * beta * temperature)


@_one_pass
def _to_thresholds(g, x, alpha, beta, thresholds, temperature, levels):
    sums = [
        height * tf.reduce_sum(g * _sigmoid_derivative(temperature * (beta * x - threshold)))
        for height, threshold in _steps(thresholds, levels)
    ]
    return -alpha * temperature * tf.stack(sums)


def _sigmoid_derivative(x):
    return tf.sigmoid(x) * tf.sigmoid(-x)


def _steps(thresholds, levels):
    """(height, threshold) of each step of a staircase."""
    heights = [float(upper - lower) for lower, upper in zip(levels[:-1], levels[1:], strict=True)]
    return zip(heights, tf.unstack(thresholds, len(heights)), strict=True)
