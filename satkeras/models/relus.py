"""What stands between a sum and the quantizer that stores it, and rounds the sum's bias at inference, or if frozen.

A ReLU need not do, or keep, what the quantizer does anyway. The bias becomes the one that the file holds (see
`bias_rounding.py`).
"""

import tensorflow as tf

from satkeras._compat import keras, serializable
from satkeras.models.bias_rounding import with_rounded_bias
from satkeras.models.inference import rounds


@serializable
class AbsorbedReLU(keras.layers.ReLU):
    """A ReLU that the quantizer after it does, of any maximum: it passes on what it gets.

    The unsigned levels of a learned clip begin at 0, so that both passes come to the same without it. Only at 0 itself
    does the gradient differ: a ReLU stops it, the clip's edges belong to its inside.
    """

    @tf.autograph.experimental.do_not_convert
    def call(self, inputs, training=None):
        return with_rounded_bias(inputs, self) if rounds(self, training) else inputs


@serializable
class MaskedReLU(keras.layers.ReLU):
    """Keras' ReLU: the same result, and the same gradient as long as the incoming one is finite.

    Its derivative is read off a mask of bools. TensorFlow's reads it off the result, which a float network keeps
    anyway, as the next layer's input; where a quantizer comes between the two it would be kept for that alone.
    """

    @tf.autograph.experimental.do_not_convert
    def call(self, inputs, training=None):
        if rounds(self, training):
            return super().call(with_rounded_bias(inputs, self))
        if not training:
            return super().call(inputs)

        @tf.custom_gradient
        def forward(x):
            passed = x > 0 if self.max_value is None else (x > 0) & (x < self.max_value)

            def gradient(g):
                # Otherwise a graph makes floats of the mask as soon as it is there, and keeps them until g comes.
                with tf.control_dependencies([g]):
                    return g * tf.cast(passed, g.dtype)

            return super(MaskedReLU, self).call(x), gradient

        return forward(inputs)


@serializable
class RoundedBias(keras.layers.Activation):
    """Passes on a sum that is joined with other tensors before they are quantized together."""

    def __init__(self, activation="linear", **kwargs):
        super().__init__(activation, **kwargs)

    @tf.autograph.experimental.do_not_convert
    def call(self, inputs, training=None):
        return with_rounded_bias(inputs, self) if rounds(self, training) else inputs
