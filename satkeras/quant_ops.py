"""The formulas: pure differentiable functions, each with its gradient.

All compute in float32 and work eagerly, in graphs and under XLA.
"""

from functools import partial

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
    # One constant factor: the graph optimizer would make one of two, and round otherwise.
    variance = tf.math.reduce_variance(values) * (count / tf.maximum(count - 1.0, 1.0))
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


def clip_and_round(x, clip, levels):
    """Clip to `clip` times [qmin / qmax, 1] and round to steps of `clip / qmax`; no gradient for the clip value.

    The gradient of x is 1 inside the range, edges included (up to float32 rounding), and 0 outside.

    Args:
      x: float32 tensor.
      clip: positive scalar tensor.
      levels: `(qmin, qmax)`, the integers of the grid.
    """

    @tf.custom_gradient
    def forward(x, clip):
        y = _clipped_and_rounded(x, clip, levels)
        return y, lambda g: (_inside(g, x, clip, levels), tf.zeros_like(clip))

    return forward(x, clip)


def round_inside(x, clip, levels):
    """`clip_and_round` for values that all lie inside the range: the gradient of x is 1, and x is not kept for it.

    Args:
      x: float32 tensor, within `clip` times [qmin / qmax, 1].
      clip: positive scalar tensor; no gradient.
      levels: `(qmin, qmax)`, the integers of the grid.
    """

    @tf.custom_gradient
    def forward(x, clip):
        return _clipped_and_rounded(x, clip, levels), lambda g: (g, tf.zeros_like(clip))

    return forward(x, clip)


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
    ratio = levels[0] / levels[1]

    @tf.custom_gradient
    def forward(x, alpha):
        y = _clipped_and_rounded(x, alpha, levels)

        def calibrated_gradient(g):
            dx = _inside(g, x, alpha, levels)
            # Outside the range y is alpha or ratio alpha, inside dx is g: all three sums in two.
            return dx, (tf.reduce_sum(g * y) - tf.reduce_sum(dx * x)) / alpha

        def gradient(g):
            dx, below, above = tf.quantization.fake_quant_with_min_max_vars_gradient(
                g, x, ratio * alpha, alpha, **_kernel(levels)
            )
            return dx, above + ratio * below

        return y, calibrated_gradient if calibrated else gradient

    return forward(x, alpha)


def _clipped_and_rounded(x, clip, levels):
    low = levels[0] / levels[1] * clip
    return tf.quantization.fake_quant_with_min_max_vars(x, low, clip, **_kernel(levels))


def _inside(g, x, clip, levels):
    """The incoming gradient where x lies in the range, 0 elsewhere."""
    # For a range of constants the kernel makes one pass; for one of variables three, two of them for their gradients.
    ratio = levels[0] / levels[1]
    # Otherwise a graph divides as soon as x is there, in the forward pass, and keeps one more tensor until g comes.
    with tf.control_dependencies([g]):
        scaled = x / clip
    return tf.quantization.fake_quant_with_min_max_args_gradient(g, scaled, ratio, 1.0, **_kernel(levels))


def _kernel(levels) -> dict:
    """The options of TensorFlow's fake quantization for a grid."""
    steps = levels[1] - levels[0]
    num_bits = steps.bit_length()
    return {"num_bits": num_bits, "narrow_range": steps == 2**num_bits - 2}


def step_size(largest, levels):
    """`largest / qmax`, the real size of an integer step: the same float32 number eagerly, in graphs and in files.

    By way of float64, because TensorFlow's graph optimizer multiplies by a constant's reciprocal instead of dividing by
    it. In float32 that is often the number next to it, and a bias between two steps then rounds to the other one.

    Args:
      largest: float32 tensor, the value of qmax.
      levels: `(qmin, qmax)`, the integers of the grid.
    """
    return tf.cast(tf.cast(largest, tf.float64) / levels[1], tf.float32)


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


def scale_gradient(x, factor):
    """Returns x itself; its gradient is multiplied by `factor`."""

    @tf.custom_gradient
    def forward(x):
        return tf.identity(x), lambda g: g * factor

    return forward(x)
