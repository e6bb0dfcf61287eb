"""The formulas: pure differentiable functions, each with its gradient.

All compute in float32 and work eagerly, in graphs and under XLA.
"""

import tensorflow as tf

from satkeras._compat import in_xla


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

    The gradient of x is 1 inside the range, edges included, and 0 outside.

    Args:
      x: float32 tensor.
      clip: positive scalar tensor.
      levels: `(qmin, qmax)`, the integers of the grid.
    """

    @tf.custom_gradient
    def forward(x, clip):
        y = _clipped_and_rounded(x, clip, levels)
        recall = keep_in_16_bits(x, clip, levels)

        def gradient(g):
            return _inside(g, recall(g), clip, levels), tf.zeros_like(clip)

        return y, gradient

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

    Gradients, g being the incoming one and y the result (and x as `keep_in_16_bits` keeps it):

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
        recall = keep_in_16_bits(x, alpha, levels)

        def calibrated_gradient(g):
            # Outside the range y is alpha or ratio alpha, inside dx is g: all three sums in two.
            through_y = dot(g, y)
            x = recall(through_y)  # y may go before x comes back
            dx = _inside(g, x, alpha, levels)
            return dx, (through_y - dot(dx, x)) / alpha

        def gradient(g):
            dx, below, above = tf.quantization.fake_quant_with_min_max_vars_gradient(
                g, recall(g), ratio * alpha, alpha, **_kernel(levels)
            )
            return dx, above + ratio * below

        return y, calibrated_gradient if calibrated else gradient

    return forward(x, alpha)


def _clipped_and_rounded(x, clip, levels):
    low = levels[0] / levels[1] * clip
    return tf.quantization.fake_quant_with_min_max_vars(x, low, clip, **_kernel(levels))


def _inside(g, x, clip, levels):
    """The incoming gradient where x lies in the range, edges included, 0 elsewhere."""
    low = levels[0] / levels[1] * clip
    if in_xla():  # which makes one pass of anything, and has no kernel for the operator below
        return tf.where((x >= low) & (x <= clip), g, tf.zeros_like(g))
    # The one kernel that does this in one pass.
    return tf.raw_ops.QuantizeAndDequantizeV4Grad(gradients=g, input=x, input_min=low, input_max=clip, axis=-1)[0]


def dot(a, b):
    """The sum of the products of two tensors of one shape."""
    if in_xla() or tf.config.list_logical_devices("GPU"):  # their matrix products may round the factors (TF32)
        return tf.reduce_sum(a * b)
    # One pass over both tensors, and no tensor of products.
    return tf.squeeze(tf.matmul(tf.reshape(a, [1, -1]), tf.reshape(b, [1, -1]), transpose_b=True))


def _kernel(levels) -> dict:
    """The options of TensorFlow's fake quantization for a grid."""
    steps = levels[1] - levels[0]
    num_bits = steps.bit_length()
    return {"num_bits": num_bits, "narrow_range": steps == 2**num_bits - 2}


def keep_in_16_bits(x, clip, levels):
    """Keeps x for the backward pass in half its memory, and returns the function that brings it back.

    That function takes a tensor to wait for: without one a graph would bring x back at once, and keep it.

    What lay inside the range, edges included (up to float32 rounding), comes back inside, within 1/130,000 of the
    range's width; what lay outside, just outside. On GPUs and under XLA, which lack the operators, x is kept as it is.

    Args:
      x: float32 tensor.
      clip: positive scalar tensor; the range is `clip` times [qmin / qmax, 1].
      levels: `(qmin, qmax)`, the integers of the grid.
    """
    if in_xla() or tf.config.list_logical_devices("GPU"):
        return lambda after: x
    low = levels[0] / levels[1] * clip
    # Codes 1 to 65534 cover the range, 0 and 65535 are what lies outside. The edges are slightly more than half a step
    # from those two, so that rounding to float32 does not take an edge for outside.
    margin = 0.5 + 1 / 64
    step = (clip - low) / (65535 - 2 * margin)
    codes, lowest, highest = tf.raw_ops.QuantizeV2(
        input=x,
        min_range=low - margin * step,
        max_range=clip + margin * step,
        T=tf.quint16,
        mode="MIN_COMBINED",
        ensure_minimum_range=0.0,
    )

    def recall(after):
        with tf.control_dependencies([after]):
            return tf.raw_ops.Dequantize(input=codes, min_range=lowest, max_range=highest, mode="MIN_COMBINED")

    return recall


def step_size(largest, levels):
    """`largest / qmax`, the real size of an integer step: the same float32 number eagerly, in graphs and in files.

    By way of float64, because TensorFlow's graph optimizer multiplies by a constant's reciprocal instead of dividing by
    it. In float32 that is often the number next to it, and a bias between two steps then rounds to the other one.

    Args:
      largest: float32 tensor, the value of qmax.
      levels: `(qmin, qmax)`, the integers of the grid.
    """
    return tf.cast(tf.cast(largest, tf.float64) / levels[1], tf.float32)


def scale_gradient(x, factor):
    """Returns x itself; its gradient is multiplied by `factor`."""

    @tf.custom_gradient
    def forward(x):
        return tf.identity(x), lambda g: g * factor

    return forward(x)
