"""Activations clipped to a range and rounded: to fixed ends, or to an end that learns.

To read, and to test `kernels` against: training runs the functions of the same names there.

Levels are `(qmin, qmax)`, the integers of the grid; its ends are a clip value alpha for qmax and
`alpha qmin / qmax` for qmin.
"""

import tensorflow as tf

from satkeras.formulas.rounding import straight_through


def fake_quantize(x, low, high, num_steps):
    """`round((clip(x, low, high) - low) / s) s + low`, `s = (high - low) / num_steps` (Jacob et al. 2018, eq. 12).

    Differentiated as `clip(x, low, high)`: the gradient of x is 1 inside the range, edges included, and 0 outside.

    Args:
      x: float32 tensor.
      low: scalar, at most 0, such that 0 is a level.
      high: scalar, at least 0.
      num_steps: how many steps of the grid lie between them.
    """
    step = (high - low) / num_steps
    qmin = tf.round(low / step)
    clipped = tf.clip_by_value(x, qmin * step, (qmin + num_steps) * step)
    integers = tf.floor((clipped - qmin * step) / step + qmin + 0.5)  # ties up, as TensorFlow's kernel has them
    return straight_through(integers * step, tf.clip_by_value(x, low, high))


def clip_and_round(x, clip, levels):
    """`pact` with a clip value that does not learn; DoReFa's activations with 1 (DoReFa, section 2.5).

    Args:
      x: float32 tensor.
      clip: positive scalar tensor; no gradient.
      levels: `(qmin, qmax)`.
    """
    return pact(x, tf.stop_gradient(clip), levels)


def round_inside(x, clip, levels):
    """`clip_and_round` for an x that lies inside the range: its gradient is 1.

    Args:
      x: float32 tensor, within `clip` times [qmin / qmax, 1].
      clip: positive scalar tensor; no gradient.
      levels: `(qmin, qmax)`.
    """
    return straight_through(clip_and_round(x, clip, levels), x)


def pact(x, alpha, levels):
    """`alpha q_k(clip(x, 0, alpha) / alpha)`, differentiated as `clip(x, 0, alpha)` (PACT, eq. 1-3).

    So alpha's gradient is the sum of the incoming one over what is clipped. Signed levels clip below as well.

    Args:
      x: float32 tensor.
      alpha: positive scalar tensor, the clip value.
      levels: `(qmin, qmax)`.
    """
    return fake_quantize(x, levels[0] / levels[1] * alpha, alpha, levels[1] - levels[0])


def calibrated_pact(x, alpha, levels):
    """`pact`, differentiated as the product that it is, with rounding straight through (SAT, "calibrated gradient").

    So alpha's gradient has the rounding error, too: `q_k(x / alpha) - x / alpha` for each x that is not clipped.

    Args:
      x: float32 tensor.
      alpha: positive scalar tensor, the clip value.
      levels: `(qmin, qmax)`.
    """
    y = pact(x, alpha, levels)
    error = (y - tf.clip_by_value(x, levels[0] / levels[1] * alpha, alpha)) / alpha
    return y + tf.stop_gradient(error) * (alpha - tf.stop_gradient(alpha))
