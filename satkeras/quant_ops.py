"""The formulas: pure differentiable functions, each with its gradient.

All compute in float32 and work eagerly, in graphs and under XLA.
"""

import tensorflow as tf


def round_ste(x):
    """Round to the nearest integer, ties to even; the gradient passes straight through (DoReFa, eq. 5)."""
    return x + tf.stop_gradient(tf.round(x) - x)


def clamp_weights(weights):
    """The tanh transform of DoReFa, scaled to [-1, 1]: `tanh(w) / max|tanh(w)|` over the whole tensor.

    Differentiated as it stands, through the maximum too, as the authors of SAT do. An all-zero tensor stays zero.

    Args:
      weights: float tensor of any shape.
    """
    bounded = tf.tanh(weights)
    largest = tf.reduce_max(tf.abs(bounded))
    return bounded / tf.where(largest > 0, largest, tf.ones_like(largest))


def odd_grid_ste(clamped, num_bits):
    """DoReFa's own weight grid: `2 q_k((x + 1) / 2) - 1`, with `q_k(x) = round(a x) / a` and `a = 2^k - 1`.

    The result times `a` is an odd integer in [-a, a]: 2^k levels, none of them zero. Straight-through gradient.

    Args:
      clamped: float tensor in [-1, 1].
      num_bits: k.
    """
    steps = float(2**num_bits - 1)
    return (2.0 * round_ste((clamped + 1.0) * (steps / 2.0)) - steps) / steps


def symmetric_grid_ste(clamped, num_bits):
    """The weight grid with zero: `round(n x) / n` with `n = 2^(k-1) - 1`; 2^k - 1 levels. Straight-through gradient.

    Args:
      clamped: float tensor in [-1, 1].
      num_bits: k, at least 2.
    """
    steps = float(2 ** (num_bits - 1) - 1)
    return round_ste(clamped * steps) / steps


def rescale_factor(quantized, target_stddev):
    """The constant that gives `quantized` the standard deviation `target_stddev` (SAT's scale; no gradient)."""
    return tf.stop_gradient(target_stddev) / unbiased_stddev(quantized)


def unbiased_stddev(values):
    """The standard deviation over the whole tensor, with N - 1; 1 for a tensor without any, or beyond float32."""
    values = tf.stop_gradient(values)
    count = tf.cast(tf.size(values), tf.float32)
    variance = tf.math.reduce_variance(values) * count / tf.maximum(count - 1.0, 1.0)
    # A constant tensor's variance is not exactly zero in float32.
    usable = (variance > 1e-12 * tf.reduce_mean(tf.square(values))) & tf.math.is_finite(variance)
    return tf.sqrt(tf.where(usable, variance, tf.ones_like(variance)))


def fake_quantize(x, low, high, num_bits, narrow_range=False):
    """Clip to [low, high] and round to the `2^num_bits - 1` steps between them (one fewer if `narrow_range`).

    TensorFlow's fused kernel. The gradient of x is 1 inside the range, edges included, and 0 outside.

    Args:
      x: float32 tensor.
      low: scalar, at most 0, such that 0 lies on the grid (otherwise the kernel shifts the range).
      high: scalar, at least 0.
      num_bits: 2 to 16.
      narrow_range: whether the lowest of the `2^num_bits` levels is left out.
    """
    return tf.quantization.fake_quant_with_min_max_vars(x, low, high, num_bits=num_bits, narrow_range=narrow_range)


def pact(x, alpha, levels, calibrated=True):
    """PACT: clip to alpha times [qmin / qmax, 1] and round to steps of alpha / qmax.

    For unsigned levels (0, 2^k - 1) this is PACT's `alpha q_k(clip(x, 0, alpha) / alpha)` (PACT, eq. 1-2).

    Gradients, g being the incoming one and y the result:

      dx     = g inside the range, edges included (up to float32 rounding); 0 outside
      dalpha = sum(g where x > alpha) + (qmin / qmax) sum(g where x < alpha qmin / qmax)     (PACT, eq. 3)
             + sum(g (y - x) / alpha inside the range)              if calibrated (SAT, calibrated gradient)

    Args:
      x: float32 tensor.
      alpha: positive scalar tensor, the clip value.
      levels: `(qmin, qmax)`, the integers of the grid.
      calibrated: whether alpha's gradient includes the rounding error inside the range.
    """
    qmin, qmax = levels
    ratio = qmin / qmax
    num_bits = (qmax - qmin).bit_length()
    kernel = {"num_bits": num_bits, "narrow_range": qmax - qmin == 2**num_bits - 2}

    @tf.custom_gradient
    def forward(x, alpha):
        low = ratio * alpha
        y = tf.quantization.fake_quant_with_min_max_vars(x, low, alpha, **kernel)

        def backward(g):
            dx, below, above = tf.quantization.fake_quant_with_min_max_vars_gradient(g, x, low, alpha, **kernel)
            dalpha = above + ratio * below
            if calibrated:
                # dx is g inside the range and 0 outside, so one pass covers both.
                dalpha += tf.reduce_sum(dx * (y - x)) / alpha
            return dx, dalpha

        return y, backward

    return forward(x, alpha)


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
    for height, threshold in zip(_heights(levels), tf.unstack(thresholds, len(levels) - 1), strict=True):
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
    heights = _heights(levels)
    slope = temperature if gradient_temperature is None else tf.minimum(temperature, gradient_temperature)

    @tf.custom_gradient
    def forward(x, alpha, beta, thresholds):
        y = tf.fill(tf.shape(x), float(levels[0]))
        for height, threshold in zip(heights, tf.unstack(thresholds, len(heights)), strict=True):
            y += height * tf.sigmoid((temperature * beta) * x - temperature * threshold)
        y *= alpha

        def backward(g):
            # By tanh: graph optimizers would recognize the sigmoids of the forward pass and keep them all alive.
            half = 0.5 * slope
            steepness, dthresholds = tf.zeros_like(x), []
            for height, threshold in zip(heights, tf.unstack(thresholds, len(heights)), strict=True):
                derivative = 0.25 - 0.25 * tf.square(tf.tanh((half * beta) * x - half * threshold))
                steepness += height * derivative
                dthresholds.append(-alpha * slope * height * tf.reduce_sum(g * derivative))
            dscaled = g * steepness * (alpha * slope)
            return dscaled * beta, tf.reduce_sum(g * y) / alpha, tf.reduce_sum(dscaled * x), tf.stack(dthresholds)

        return y, backward

    return forward(x, alpha, beta, thresholds)


def scale_gradient(x, factor):
    """Returns x itself; its gradient is multiplied by `factor`."""

    @tf.custom_gradient
    def forward(x):
        return tf.identity(x), lambda g: g * factor

    return forward(x)


def _heights(levels):
    return [float(upper - lower) for lower, upper in zip(levels[:-1], levels[1:], strict=True)]
