"""Biases as the exported file holds them: integers in steps of input scale times weight scale.

Biases and batch norms train in float, as in the papers. But at inference a quantized model computes with the rounded
bias, so that it predicts what the file will. Without that a tenth of a percent of a low-bit layer's levels would
differ, and every layer after it amplifies a difference.

The rounding is added where a sum is complete: by the ReLU behind it (see `relus.py`), or by the quantizer where there
is none. There a layer knows, by walking up the model's graph, which batch norms and which kernel computed its input,
and on which grid their input lies.
"""

import weakref

import tensorflow as tf

from satkeras._compat import TfmotQuantizeWrapper, first_call, float32_variables, keras, weight_variables
from satkeras.models.channel_scale import ChannelScale
from satkeras.models.stored import stored_step
from satkeras.quantizers import Quantizer
from satkeras.quantizers.int8 import weight_spread

# Beyond this int32 cannot hold the bias; the exporter then stores the channel in another way, or refuses.
LARGEST_BIAS = 2.0**30


class BiasRoundingQuantizer(Quantizer):
    """A tensor's quantizer, which at inference first rounds the bias of the layers that computed the tensor.

    It is created anew for each layer and never stored: the model's config holds the quantizer inside it.
    """

    def __init__(self, quantizer: Quantizer):
        self.quantizer = quantizer
        self.num_bits = quantizer.num_bits
        self._wrapper = lambda: None

    @property
    def declared_variables(self):
        return self.quantizer.declared_variables

    def build(self, tensor_shape, name, layer):
        self._wrapper = weakref.ref(layer)
        return self.quantizer.build(tensor_shape, name, layer)

    def __call__(self, inputs, training, weights, **kwargs):
        if not training:
            inputs = with_rounded_bias(inputs, self._wrapper())
        return self.quantizer(inputs, training, weights, **kwargs)

    @property
    def levels(self):
        return self.quantizer.levels

    def scale(self, variables, latent=None):
        return self.quantizer.scale(variables, latent)

    def get_config(self):
        raise NotImplementedError("The quantizer inside is what is stored")


def with_rounded_bias(inputs, layer):
    """What a layer reads, with the bias of the layers before it as the file holds it.

    Args:
      inputs: what the layer reads, (..., channels).
      layer: called once in a functional model; None, or not called yet: the inputs stay as they are.
    """
    call = first_call(layer)
    with float32_variables():
        error = None if call is None else bias_error(call.parent_nodes[0])
    # A layer in inference mode may train: its bias learns as if it were not rounded.
    return inputs if error is None else inputs + tf.cast(tf.stop_gradient(error), inputs.dtype)


def bias_error(call):
    """What rounding the bias adds to the result of a layer call, one value for each channel.

    Args:
      call: the Keras node whose result is stored.

    Returns:
      float64 (channels,), in the result's units; None where no bias is added, or nothing is quantized.
    """
    norms = []
    while isinstance(call.layer, (keras.layers.BatchNormalization, keras.layers.Rescaling, ChannelScale)):
        norms.insert(0, call.layer)
        call = call.parent_nodes[0]
    found = _step_and_bias(call, identity=bool(norms))
    if found is None:
        return None
    step, bias = found
    for norm in norms:
        factor, offset = _affine(norm)
        step, bias = step * factor, bias * factor + offset
    steps = bias / tf.abs(step)
    storable = (tf.abs(steps) <= LARGEST_BIAS) & (step != 0)
    return tf.where(storable, (tf.round(steps) - steps) * tf.abs(step), tf.zeros_like(steps))


def _affine(norm):
    """What a batch norm, a Rescaling or a channel scale multiplies by and adds, in float64."""
    if isinstance(norm, ChannelScale):
        return tf.identity(norm.factor), tf.identity(norm.offset)
    if isinstance(norm, keras.layers.Rescaling):
        return tf.constant(norm.scale, tf.float64), tf.constant(norm.offset, tf.float64)
    factor = tf.math.rsqrt(_float64(norm.moving_variance) + norm.epsilon)
    factor *= _float64(norm.gamma) if norm.scale else 1.0
    return factor, (_float64(norm.beta) if norm.center else 0.0) - _float64(norm.moving_mean) * factor


def _step_and_bias(call, identity: bool):
    """The real size of a step of a linear layer's sum, and its bias; None if `call` has no bias on a grid.

    With `identity`, a stored tensor counts as the result of a layer with weights 1.
    """
    kernel = _quantized_kernel(call.layer)
    if kernel is None and not identity:
        return None
    source_step = stored_step(call if kernel is None else call.parent_nodes[0])
    if source_step is None:
        return None
    if kernel is None:
        return source_step / weight_spread((0, 1)), tf.constant(0.0, tf.float64)
    latent, quantizer, variables = kernel
    spread = weight_spread(quantizer.levels, quantizer.zero_point)
    step = _float64(quantizer.scale(variables, latent)) * source_step / spread
    inner = call.layer.layer
    return step, (_float64(inner.bias) if inner.use_bias else tf.zeros_like(step))


def _quantized_kernel(layer):
    if not isinstance(layer, TfmotQuantizeWrapper):
        return None
    kernel = weight_variables(layer)
    return None if kernel is None or kernel[1].num_bits is None else kernel


def _float64(value):
    return tf.cast(value, tf.float64)
