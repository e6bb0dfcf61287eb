"""What an optimizer has to know of a quantized model: which variables its quantizers learn, and which do not decay."""

import tensorflow as tf

from satkeras._compat import keras
from satkeras.models.checks import student_of
from satkeras.models.insertion import has_quantizer, quantizer_variables
from satkeras.quantizers.base import QuantizerVariable, Role


def learned_variables(model: keras.Model, *roles: Role) -> list[tf.Variable]:
    """The variables that the quantizers of a model learn: clip values, step sizes, scales, thresholds, offsets.

    Args:
      model: what `quantize_model` returned; a float model has none.
      roles: only variables of one of these roles (`satkeras.quantizers.QuantizerVariable`); all by default.
    """
    return [
        variable
        for declared, variable in _declared(model)
        if declared.learned and (not roles or declared.role in roles)
    ]


def undecayed_variables(model: keras.Model) -> list[tf.Variable]:
    """The variables that weight decay should leave alone, for `optimizer.exclude_from_weight_decay(var_list=...)`.

    These are biases and batch norms' variables (all with less than two axes), depthwise kernels, and the variables of
    quantizers, but for those that a quantizer declares as decayed.

    Args:
      model: a float model or what `quantize_model` returned.

    References:
      Depthwise kernels: MobileNets (arXiv:1704.04861), section 3.3.
    """
    depthwise = [layer for layer in model.submodules if isinstance(layer, keras.layers.DepthwiseConv2D)]
    excluded = {id(variable) for layer in depthwise for variable in layer.weights}
    decays = {id(variable): declared.decayed for declared, variable in _declared(model)}
    return [
        variable
        for variable in model.weights
        if not decays.get(id(variable), len(variable.shape) > 1 and id(variable) not in excluded)
    ]


def _declared(model: keras.Model) -> list[tuple[QuantizerVariable, tf.Variable]]:
    return [found for layer in filter(has_quantizer, student_of(model).layers) for found in quantizer_variables(layer)]
