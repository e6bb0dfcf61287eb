"""tfmot's quantizing wrapper, adapted to Keras: it can be frozen, saved, cloned and run in mixed precision.

tfmot's own wrapper replaces the layer's kernel by a symbolic tensor for good, builds itself a second time when Keras
loads it, orders its weights by whether the layer inside was built before, ignores `trainable`, and hands quantizers
whatever dtype the precision policy says.
"""

import numpy as np
import tensorflow as tf

from satkeras._compat import TfmotQuantizeWrapper, float32_variables, in_xla, only_shapes_count, serializable


@serializable
class QuantizeWrapper(TfmotQuantizeWrapper):
    """A layer whose kernel or output is quantized, as its `quantize_config` says.

    The wrapper computes in the inner layer's precision, its quantizers always in float32. With `trainable=False` its
    variables stay as they are and it runs in inference mode, as a frozen batch norm does.

    Args:
      layer: the layer to wrap.
      quantize_config: an `InjectedQuantizeConfig`.
      held: whether `set_phase` has frozen the layer, and will free it.
    """

    def __init__(self, layer, quantize_config, held=False, **kwargs):
        kwargs.setdefault("dtype", layer.dtype_policy)
        kwargs.setdefault("activity_regularizer", layer.activity_regularizer)
        super().__init__(layer, quantize_config, **kwargs)
        self.held = held

    def build(self, input_shape):
        if self.built:
            return
        if not self.layer.built:
            self.layer.build(input_shape)
            self.layer.built = True
        # tfmot lists other variables for a frozen layer, and a file would only fit the state that it was saved in.
        trainable, self.layer.trainable = self.layer.trainable, True
        super().build(input_shape)
        self.layer.trainable = trainable
        for latent, quantizer, variables in self._weight_vars:
            latent._satkeras_quantization = (quantizer, variables)

    def get_config(self):
        return {**super().get_config(), "held": self.held}

    def get_build_config(self):
        # Built when it is called, as Keras' own layers: built before, its variables would not be named after it.
        return None

    # Quantizers need no AutoGraph, which traces them more slowly than everything else together.
    @tf.autograph.experimental.do_not_convert
    def call(self, inputs, training=None, **kwargs):
        if not self.trainable:
            training = False
        output = super().call(inputs, training=training, **kwargs)
        self.quantize_config.set_quantize_weights(self.layer, [latent for latent, *_ in self._weight_vars])
        if training and in_xla() and self.quantize_config.quantizer.marks_problems:
            # Kernels may let no NaN through: the loss has to say it.
            self.add_loss(tf.where(tf.reduce_any(tf.math.is_nan(output)), np.float32(np.nan), 0.0))  # pyright: ignore[reportCallIssue]
        return output

    def _make_quantizer_fn(self, quantizer, x, training, quantizer_vars):
        if only_shapes_count():
            return lambda: x
        quantized = super()._make_quantizer_fn(quantizer, x, training, quantizer_vars)

        def in_float32():
            with float32_variables():
                return tf.cast(quantized(), tf.as_dtype(self.compute_dtype))  # pyright: ignore[reportCallIssue]

        return in_float32

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)

    @property
    def trainable_weights(self):
        return super().trainable_weights if self.trainable else []

    @property
    def non_trainable_weights(self):
        frozen = [] if self.trainable else self._trainable_weights
        return self._dedup_weights(frozen + super().non_trainable_weights)  # pyright: ignore[reportAttributeAccessIssue]


def quantization_of(variable):
    """`(quantizer, its variables)` of a latent weight, None for any other variable.

    Optimizers and callbacks are given variables and no layers.
    """
    return getattr(variable, "_satkeras_quantization", None)
