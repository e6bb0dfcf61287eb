"""tfmot `QuantizeConfig`s with the quantizer injected: one for a layer's kernel, one for a tensor."""

from satkeras._compat import keras, serializable, tfmot
from satkeras.models.bias_rounding import BiasRoundingQuantizer
from satkeras.quantizers import Quantizer

_QuantizeConfig = tfmot.quantization.keras.QuantizeConfig


class InjectedQuantizeConfig(_QuantizeConfig):
    """Holds one quantizer; quantizes nothing."""

    def __init__(self, quantizer: Quantizer):
        self.quantizer = quantizer

    def get_weights_and_quantizers(self, layer):
        return []

    def set_quantize_weights(self, layer, quantize_weights):
        pass

    def get_activations_and_quantizers(self, layer):
        return []

    def set_quantize_activations(self, layer, quantize_activations):
        pass

    def get_output_quantizers(self, layer):
        return []

    def get_config(self):
        return {"quantizer": keras.utils.legacy.serialize_keras_object(self.quantizer)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.utils.legacy.deserialize_keras_object(config["quantizer"]))


@serializable
class WeightQuantizeConfig(InjectedQuantizeConfig):
    """Quantizes the kernel of a convolution, depthwise convolution or dense layer."""

    def _kernel_name(self, layer):
        return "depthwise_kernel" if isinstance(layer, keras.layers.DepthwiseConv2D) else "kernel"

    def get_weights_and_quantizers(self, layer):
        return [(getattr(layer, self._kernel_name(layer)), self.quantizer)]

    def set_quantize_weights(self, layer, quantize_weights):
        # Past Keras' __setattr__, which would forget that the variable belongs to the layer.
        object.__setattr__(layer, self._kernel_name(layer), quantize_weights[0])


@serializable
class OutputQuantizeConfig(InjectedQuantizeConfig):
    """Quantizes the output of a layer."""

    def get_output_quantizers(self, layer):
        return [BiasRoundingQuantizer(self.quantizer)]
