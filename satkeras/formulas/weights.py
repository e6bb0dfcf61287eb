"""Weights on a grid in [-1, 1]: DoReFa's tanh transform, its grids, and the rescale of SAT."""

import tensorflow as tf

from satkeras.formulas.rounding import round_ste, straight_through

# Of k_pool^2 / n_in, as the variance of the last layer: SAT calls that enough for its Rule I.
ENOUGH = 0.1


def clamp_weights(weights):
    """`tanh(w) / max|tanh(w)|`, the maximum over the whole tensor: weights in [-1, 1] (DoReFa, eq. 9).

    Differentiated as it stands, through the maximum too, as the authors of SAT do. An all-zero tensor stays zero.

    Args:
      weights: float tensor of any shape.
    """
    bounded = tf.tanh(weights)
    largest = tf.reduce_max(tf.abs(bounded))
    return bounded / tf.where(largest > 0, largest, tf.ones_like(largest))


def odd_grid_ste(clamped, num_bits):
    """`2 q_k((x + 1) / 2) - 1` with `q_k(x) = round(a x) / a` and `a = 2^k - 1` (DoReFa, eq. 9).

    The result times `a` is an odd integer in [-a, a]: 2^k levels, none of them zero. Straight-through gradient.

    Args:
      clamped: float tensor in [-1, 1].
      num_bits: k.
    """
    a = float(2**num_bits - 1)
    return (2.0 * round_ste((clamped + 1.0) * (a / 2.0)) - a) / a


def symmetric_grid_ste(clamped, num_bits):
    """`round(n x) / n` with `n = 2^(k-1) - 1`.

    The result times `n` is an integer in [-n, n]: 2^k - 1 levels, zero among them. Straight-through gradient.

    Args:
      clamped: float tensor in [-1, 1].
      num_bits: k, at least 2.
    """
    n = float(2 ** (num_bits - 1) - 1)
    return round_ste(clamped * n) / n


def centred_grid_ste(clamped, num_bits):
    """`(2 clip(floor(2^k (x + 1) / 2), 0, 2^k - 1) + 1) / 2^k - 1`: 2^k bins of one width, each at its middle.

    The result times 2^k is an odd integer in [-(2^k - 1), 2^k - 1], as with `odd_grid_ste`, whose two outermost bins
    are half as wide as the others. Straight-through gradient.

    Args:
      clamped: float tensor in [-1, 1].
      num_bits: k.

    References:
      The authors of SAT, in the code of AdaBits, as the grid for few bits.
    """
    bins = float(2**num_bits)
    position = (clamped + 1.0) * (bins / 2.0)
    middle = tf.clip_by_value(tf.floor(position), 0.0, bins - 1.0) + 0.5
    return straight_through(middle, position) * (2.0 / bins) - 1.0


def rule_stddev(outputs, inputs, averaged=None):
    """The standard deviation that SAT's two training rules leave a kernel that no batch norm follows.

      Rule II   1 / sqrt(n_out), so that gradients keep their size from layer to layer
      Rule I    VAR well below k_pool^2 / n_in in the last layer, so that logits do not saturate the cross-entropy;
                "below a tenth is enough"

    The smaller of the two. On ImageNet it is Rule II's, which is all that the paper's formula has: 1000 classes of 1280
    features after a 7x7 pool allow 0.1 * 49 / 1280 = 1 / 261. With 100 classes and a 4x4 pool Rule I decides.

    Args:
      outputs: n_out, output units; for convolutions, times the kernel's area.
      inputs: n_in, features that a unit reads.
      averaged: k_pool^2, how many positions the pool before the last layer averages; None where Rule I does not apply.

    References:
      SAT, section 3: Efficient Training Rules I and II.
    """
    variance = 1 / outputs
    if averaged is not None:
        variance = min(variance, ENOUGH * averaged / inputs)
    return variance**0.5


def rescale_factor(quantized, target_stddev):
    """The constant that gives `quantized` the standard deviation `target_stddev` (SAT, section 3; no gradient)."""
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
