"""A factor next to 1, and an offset, of each channel of a sum: what an exporter may choose so that runtimes agree."""

import tensorflow as tf

from satkeras._compat import keras, serializable


@serializable
class ChannelScale(keras.layers.Layer):
    """`factor * x + offset`, which follow no gradient; float64, so that the sum's scale and bias are met exactly.

    `tflite_export.portable_model` puts one behind a convolution, a dense layer, or their batch norm. It starts as the
    identity.
    """

    def build(self, input_shape):
        for name, start in (("factor", "ones"), ("offset", "zeros")):
            variable = self.add_weight(
                name=name,
                shape=(input_shape[-1],),
                dtype="float64",
                initializer=start,
                trainable=False,
                experimental_autocast=False,  # no policy rounds them
            )
            setattr(self, name, variable)
        super().build(input_shape)

    def call(self, inputs):
        factor, offset = (tf.cast(variable, inputs.dtype) for variable in (self.factor, self.offset))
        return inputs * factor + offset

    def get_config(self):
        return {**super().get_config()}  # Keras makes one up otherwise, and fails at a precision policy
