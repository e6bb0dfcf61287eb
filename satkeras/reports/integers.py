"""The integers of a quantized model: its weights on their grids."""

import dataclasses
import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from satkeras._compat import keras, weight_variables
from satkeras.files import require_writable, write_whole
from satkeras.models.checks import require_quantized
from satkeras.models.insertion import has_quantizer
from satkeras.quantizers import Quantizer
from satkeras.quantizers.int8 import narrowed
from satkeras.quantizers.quant_params import QuantParams


@dataclasses.dataclass(frozen=True, eq=False)
class IntegerWeight:
    """A quantized kernel.

    Attributes:
      integers: int32, in the kernel's shape.
      params: their grid; `params.dequantize(integers)` is the quantized kernel.
      num_bits: the width of its quantizer.
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


def save_integer_weights(model: keras.Model, path: str | os.PathLike) -> None:
    """Writes what `integer_weights` gives as an .npz file, whole or not at all, for `np.load` without pickles.

    Its arrays, for each kernel, under `<layer>/<array>` (layers may have slashes in their names, arrays have none):

      integers     int8, or int16 where the grid does not fit int8; in the kernel's shape
      scale        float32, a scalar or one for each channel: the real size of an integer step
      zero_point   int32 scalar: real = scale * (integer - zero_point)
      axis         int32 scalar: the kernel's axis that `scale` runs along, -1 for a scalar
      bits         int32 scalar: the width of the quantizer
      levels       int32 (2,): the smallest and the largest integer of the grid

    Args:
      model: what `quantize_model` returned.
      path: where the file goes, with its ending; its folder must exist.

    Raises:
      TypeError, ValueError: as `integer_weights`; `path` is not one of a file that can be written.
    """
    path = require_writable(path)
    require_quantized(model, "save_integer_weights")
    arrays = {}
    for layer, weight in integer_weights(model).items():
        params = weight.params
        fits_int8 = -128 <= params.qmin and params.qmax <= 127
        found = {
            "integers": narrowed(weight.integers, np.int8 if fits_int8 else np.int16),
            "scale": params.scale,
            "zero_point": narrowed(params.zero_point, np.int32),
            "axis": narrowed(-1 if params.axis is None else params.axis, np.int32),
            "bits": narrowed(weight.num_bits, np.int32),
            "levels": narrowed([params.qmin, params.qmax], np.int32),
        }
        arrays.update({f"{layer}/{name}": array for name, array in found.items()})
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_whole(path, content.getvalue())


def integer_weight(wrapper: keras.layers.Layer) -> IntegerWeight:
    """The integers of one wrapped layer's kernel.

    Raises:
      ValueError: the kernel is kept in full precision, or holds NaN or infinity.
    """
    latent, quantizer, variables = weight_variables(wrapper)
    num_bits = quantizer.require_rounding()
    values = latent.numpy()
    if not np.isfinite(values).all():
        raise ValueError("its weights hold NaN or infinity")
    params = quantizer.quant_params({name: value.numpy() for name, value in variables.items()}, values)
    quantized = quantizer(latent, False, variables).numpy()
    return IntegerWeight(params.integers_of(quantized), params, num_bits)


def first_codes(quantizer: Quantizer, variables: Mapping[str, Any], grid: np.ndarray) -> np.ndarray:
    """For each level above the lowest, where in `grid` it begins; `len(grid)` for a level that none of it has.

    Args:
      quantizer: a rising one.
      variables: what its `build` returned.
      grid: real values, increasing.
    """
    params = quantizer.quant_params({name: value.numpy() for name, value in variables.items()})
    integers = params.integers_of(quantizer(grid.astype(np.float32), False, variables))
    return np.searchsorted(integers, np.arange(params.qmin + 1, params.qmax + 1))
