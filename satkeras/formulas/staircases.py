"""The formulas of Quantization Networks: a staircase in unit steps, and in sigmoids with their gradients.

All compute in float32 and work eagerly, in graphs and under XLA.
"""

from functools import partial

import tensorflow as tf

from satkeras.formulas import quantization as quant_ops

# What a staircase does in training: hand its input through, learn, or stay as it is.
OFF, SOFT, FIXED = range(3)


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


def soft_steps(
    x, alpha, beta, thresholds, temperature, levels, gradient_temperature=None, learn_thresholds=True, phase=SOFT
):
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
      learn_thresholds: False for zeros as db_i.
      phase: int32 scalar. SOFT: all of the above. FIXED: `unit_steps`, and no gradients. OFF: y is x, dx is g, the
        other gradients are zeros. Chosen value by value: operators that branch would make the whole graph's order
        another, in which a training step takes a quarter more memory.
    """

    @tf.custom_gradient
    def forward(x, alpha, beta, thresholds):
        given = alpha, beta, thresholds
        y = _by_phase(x, *given, temperature, phase, levels)

        def backward(g):
            slope = temperature if gradient_temperature is None else tf.minimum(temperature, gradient_temperature)
            dx = _through_sigmoids(g, x, *given, slope, phase, levels)
            dalpha, dbeta = quant_ops.dot(g, y) / alpha, quant_ops.dot(dx, x) / beta
            dthresholds = _to_thresholds(g, x, *given, slope, levels) if learn_thresholds else tf.zeros_like(thresholds)
            learned = (tf.where(tf.equal(phase, SOFT), d, tf.zeros_like(d)) for d in (dalpha, dbeta, dthresholds))
            return dx, *learned

        return y, backward

    return forward(x, alpha, beta, thresholds)


# Compiled, each is one pass over the tensor; as operators of their own the n sigmoids are some 10 n.
_one_pass = partial(tf.function, jit_compile=True, autograph=False)


@_one_pass
def _by_phase(x, alpha, beta, thresholds, temperature, phase, levels):
    total = float(levels[0])
    for height, threshold in _steps(thresholds, levels):
        soft = tf.sigmoid(temperature * (beta * x - threshold))
        total += height * tf.where(tf.equal(phase, SOFT), soft, tf.cast(beta * x >= threshold, tf.float32))
    return tf.where(tf.equal(phase, OFF), x, alpha * total)


@_one_pass
def _through_sigmoids(g, x, alpha, beta, thresholds, temperature, phase, levels):
    steepness = 0.0
    for height, threshold in _steps(thresholds, levels):
        steepness += height * _sigmoid_derivative(temperature * (beta * x - threshold))
    soft = g * steepness * (alpha * beta * temperature)
    return tf.where(tf.equal(phase, OFF), g, tf.where(tf.equal(phase, SOFT), soft, 0.0))


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
