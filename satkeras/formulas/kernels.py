"""The formulas as training runs them: fused into few passes over a tensor, and little kept for the backward pass.

`activations` and `staircases` have them to read, under the same names, with the arguments explained. Both give the
same values, bit for bit (sigmoids: compiled by XLA). So do their gradients, but for sums, which run in another order
here, and for what `keep_in_16_bits` rounds.
"""

from functools import partial

import tensorflow as tf

from satkeras._compat import in_xla
from satkeras.formulas.staircases import heights_and_thresholds

# What a staircase does in training: hand its input through, learn, or stay as it is.
OFF, SOFT, FIXED = range(3)


def fake_quantize(x, low, high, num_steps):
    """`activations.fake_quantize` by TensorFlow's kernel: `num_steps` is 2^k - 1 or 2^k - 2, k up to 16."""
    return tf.quantization.fake_quant_with_min_max_vars(x, low, high, **_options(num_steps))


def clip_and_round(x, clip, levels):
    """`activations.clip_and_round`, with x kept in 16 bits."""

    @tf.custom_gradient
    def forward(x, clip):
        y = _clipped_and_rounded(x, clip, levels)
        recall = keep_in_16_bits(x, clip, levels)

        def gradient(g):
            return _inside(g, recall(g), clip, levels), tf.zeros_like(clip)

        return y, gradient

    return forward(x, clip)


def round_inside(x, clip, levels):
    """`activations.round_inside`, with nothing kept."""

    @tf.custom_gradient
    def forward(x, clip):
        return _clipped_and_rounded(x, clip, levels), lambda g: (g, tf.zeros_like(clip))

    return forward(x, clip)


def pact(x, alpha, levels):
    """`activations.pact`, with x kept in 16 bits.

      dx     = g inside the range, edges included (up to float32 rounding); 0 outside
      dalpha = sum(g where x > alpha) + (qmin / qmax) sum(g where x < alpha qmin / qmax)

    g is the incoming gradient.
    """
    ratio = levels[0] / levels[1]

    @tf.custom_gradient
    def forward(x, alpha):
        y = _clipped_and_rounded(x, alpha, levels)
        recall = keep_in_16_bits(x, alpha, levels)

        def gradient(g):
            dx, below, above = tf.quantization.fake_quant_with_min_max_vars_gradient(
                g, recall(g), ratio * alpha, alpha, **_options(levels[1] - levels[0])
            )
            return dx, above + ratio * below

        return y, gradient

    return forward(x, alpha)


def calibrated_pact(x, alpha, levels):
    """`activations.calibrated_pact`, with x kept in 16 bits.

      dx     = g inside the range, edges included (up to float32 rounding); 0 outside
      dalpha = sum(g where x > alpha) + (qmin / qmax) sum(g where x < alpha qmin / qmax) + sum(dx (y - x)) / alpha

    The x in dalpha is the kept one: dalpha is off by `(1 - qmin / qmax) sum|g| / 130,000` at most.
    """

    @tf.custom_gradient
    def forward(x, alpha):
        y = _clipped_and_rounded(x, alpha, levels)
        recall = keep_in_16_bits(x, alpha, levels)

        def gradient(g):
            # Outside the range y is alpha or its lower end, inside dx is g: all three sums in two.
            through_y = dot(g, y)
            x = recall(through_y)  # y may go before x comes back
            dx = _inside(g, x, alpha, levels)
            return dx, (through_y - dot(dx, x)) / alpha

        return y, gradient

    return forward(x, alpha)


def _clipped_and_rounded(x, clip, levels):
    return fake_quantize(x, levels[0] / levels[1] * clip, clip, levels[1] - levels[0])


def _options(num_steps) -> dict:
    """The options of TensorFlow's fake quantization for a grid."""
    num_bits = num_steps.bit_length()
    return {"num_bits": num_bits, "narrow_range": num_steps == 2**num_bits - 2}


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
    # Codes 1 to 65534 cover the range, 0 and 65535 are what lies outside. The edges are slightly more than half a code
    # from those two, so that rounding to float32 does not put an edge outside.
    margin = 0.5 + 1 / 64
    code = (clip - low) / (65535 - 2 * margin)
    codes, lowest, highest = tf.raw_ops.QuantizeV2(
        input=x,
        min_range=low - margin * code,
        max_range=clip + margin * code,
        T=tf.quint16,
        mode="MIN_COMBINED",
        ensure_minimum_range=0.0,
    )

    def recall(after):
        with tf.control_dependencies([after]):
            return tf.raw_ops.Dequantize(input=codes, min_range=lowest, max_range=highest, mode="MIN_COMBINED")

    return recall


def soft_staircase(
    x, alpha, beta, thresholds, temperature, levels, gradient_temperature=None, learn_thresholds=True, phase=SOFT
):
    """`staircases.soft_staircase` in one pass: only x and y are kept, the backward pass computes the sigmoids anew.

    With g the incoming gradient, `d_i = sigma(1 - sigma)` at `T (beta x - b_i)` and `D = sum_i s_i d_i`:

      dx     = g alpha beta T D              dalpha = sum(g y / alpha)
      dbeta  = sum(g alpha T x D)            db_i   = -alpha T s_i sum(g d_i)

    T, the temperature, is not differentiated.

    Args:
      x: as the arguments after it, those of `staircases.soft_staircase`.
      alpha: positive.
      beta: positive.
      thresholds: the b_i.
      temperature: T.
      levels: the Y_i.
      gradient_temperature: if not None, dx, dbeta and db_i are those at `min(T, gradient_temperature)`, a wider slope
        that reaches the values between the thresholds of a high temperature.
      learn_thresholds: False for zeros as db_i.
      phase: int32 scalar. SOFT: all of the above. FIXED: `staircases.staircase`, and no gradients. OFF: y is x, dx is
        g, the other gradients are zeros. Chosen value by value: operators that branch would make the whole graph's
        order another, in which a training step needs a quarter more memory.
    """

    @tf.custom_gradient
    def forward(x, alpha, beta, thresholds):
        parameters = alpha, beta, thresholds
        y = _by_phase(x, *parameters, temperature, phase, levels)

        def gradient(g):
            slope = temperature if gradient_temperature is None else tf.minimum(temperature, gradient_temperature)
            dx = _through_sigmoids(g, x, *parameters, slope, phase, levels)
            dalpha, dbeta = dot(g, y) / alpha, dot(dx, x) / beta
            db = _to_thresholds(g, x, *parameters, slope, levels) if learn_thresholds else tf.zeros_like(thresholds)
            learned = (tf.where(tf.equal(phase, SOFT), d, tf.zeros_like(d)) for d in (dalpha, dbeta, db))
            return dx, *learned

        return y, gradient

    return forward(x, alpha, beta, thresholds)


# Compiled, each is one pass over the tensor; as operators of their own the n sigmoids are some 10 n.
_one_pass = partial(tf.function, jit_compile=True, autograph=False)


@_one_pass
def _by_phase(x, alpha, beta, thresholds, temperature, phase, levels):
    total = float(levels[0])
    for height, threshold in heights_and_thresholds(levels, thresholds):
        soft = tf.sigmoid(temperature * (beta * x - threshold))
        total += height * tf.where(tf.equal(phase, SOFT), soft, tf.cast(beta * x >= threshold, tf.float32))
    return tf.where(tf.equal(phase, OFF), x, alpha * total)


@_one_pass
def _through_sigmoids(g, x, alpha, beta, thresholds, temperature, phase, levels):
    steepness = 0.0
    for height, threshold in heights_and_thresholds(levels, thresholds):
        steepness += height * _sigmoid_derivative(temperature * (beta * x - threshold))
    soft = g * steepness * (alpha * beta * temperature)
    return tf.where(tf.equal(phase, OFF), g, tf.where(tf.equal(phase, SOFT), soft, 0.0))


@_one_pass
def _to_thresholds(g, x, alpha, beta, thresholds, temperature, levels):
    sums = [
        height * tf.reduce_sum(g * _sigmoid_derivative(temperature * (beta * x - threshold)))
        for height, threshold in heights_and_thresholds(levels, thresholds)
    ]
    return -alpha * temperature * tf.stack(sums)


def _sigmoid_derivative(x):
    return tf.sigmoid(x) * tf.sigmoid(-x)
