"""The integers of a quantized model: its weights on their grids."""

import dataclasses

import numpy as np

from satkeras._compat import keras, weight_variables
from satkeras.checks import require_quantized
from satkeras.qparams import QuantParams
from satkeras.rewrite import has_quantizer


@dataclasses.dataclass(frozen=True, eq=False)
class IntegerWeight:
    """A quantized kernel.

    Attributes:
      integers: int32, in the kernel's shape.
      params: their grid; `params.dequantize(integers)` is the quantized kernel.
      num_bits: the width that the quantizer was asked for.
    """

    integers: np.ndarray
    params: QuantParams
    num_bits: int


def integer_weights(model: keras.Model) -> dict[str, IntegerWeight]:
    """The integers of every quantized kernel of a model that `quantize_model` returned, by layer name.

    Raises:
      TypeError: not a tf_keras model.
      ValueError: a model without quantizers; a kernel is kept in full precision, or holds NaN or infinity, and the
        layer is named.
    """
    require_quantized(model, "integer_weights")
    found = {}
    for layer in model.layers:
        if has_quantizer(layer) and weight_variables(layer) is not None:
            try:
                found[layer.name] = integer_weight(layer)
            except ValueError as error:
                raise ValueError(f"Layer {layer.name!r}: {error}") from error
    return found


def integer_weight(wrapper: keras.layers.Layer) -> IntegerWeight:
    """The integers of one wrapped layer's kernel.

    Raises:
      ValueError: the kernel is kept in full precision, or holds NaN or infinity.
    """
    latent, quantizer, variables = weight_variables(wrapper)
    num_bits = quantizer.require_rounding()
    if not np.isfinite(latent.numpy()).all():
        raise ValueError("its weights hold NaN or infinity")
    params = quantizer.quant_params({name: value.numpy() for name, value in variables.items()}, latent.numpy())
    quantized = quantizer(latent, False, variables).numpy()
    return IntegerWeight(params.integers_of(quantized), params, num_bits)
