"""What a ReLU becomes where a quantizer comes next: it need not do, or keep, what the quantizer does anyway."""

import tensorflow as tf

from satkeras._compat import keras, serializable


@serializable
class AbsorbedReLU(keras.layers.ReLU):
    """A ReLU that the quantizer after it takes over: it passes on what it gets.

    The unsigned levels of a learned clip begin at 0, so that both passes come to the same without it. Only at 0 itself
    does the gradient differ: a ReLU stops it, the clip's edges belong to its inside.
    """

    def call(self, inputs):
        return inputs


@serializable
class MaskedReLU(keras.layers.ReLU):
    """Keras' ReLU: the same result, and the same gradient as long as the incoming one is finite.

    Its derivative is read off a mask of bools. TensorFlow's reads it off the result, which a float network keeps
    anyway, as the next layer's input; where a quantizer comes between the two it would be kept for that alone.
    """

    def call(self, inputs):
        @tf.custom_gradient
        def forward(x):
            passed = x > 0 if self.max_value is None else (x > 0) & (x < self.max_value)

            def gradient(g):
                # Otherwise a graph makes floats of the mask as soon as it is there, and keeps them until g comes.
                with tf.control_dependencies([g]):
                    return g * tf.cast(passed, g.dtype)

            return super(MaskedReLU, self).call(x), gradient

        return forward(inputs)
