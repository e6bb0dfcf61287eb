"""The zeros of pruned kernels, which not every grid has."""

import dataclasses
import warnings

import numpy as np

from satkeras._compat import keras
from satkeras.calibration.kernels import kernels_of

PRUNED = 0.1  # the share of exact zeros from which on they are no accident


def warn_about_lost_zeros(model: keras.Model) -> None:
    """Warns of pruned kernels whose grid has no zero, and says which has one.

    Args:
      model: a quantized model, its kernels those of the float model.
    """
    lost: dict[str, list[str]] = {}
    for name, (kernel, quantizer, _) in kernels_of(model).items():
        zeros = float(np.mean(kernel.numpy() == 0))
        if PRUNED <= zeros < 1 and quantizer.width is not None and not quantizer.has_zero:
            lost.setdefault(_advice(quantizer), []).append(f"{name} ({zeros:.0%} zeros)")
    for advice, names in lost.items():
        warnings.warn(
            f"Pruned kernels lose their zeros, which the grid of their quantizer does not have: {', '.join(names)}. "
            f"{advice}",
            stacklevel=3,
        )


def _advice(quantizer) -> str:
    if "grid" not in {field.name for field in dataclasses.fields(quantizer)}:
        return "Take other weight_bits: 'ternary' of scheme='qn' has zero, so have all widths of scheme='int8'"
    return (
        "The symmetric grid keeps them: quantize_model(model, dataclasses.replace(satkeras.SCHEMES['sat'], "
        "weights=DoReFaWeightQuantizer(grid='symmetric'), lone_weights=SATWeightQuantizer(grid='symmetric'))), both "
        "of satkeras.quantizers"
    )
