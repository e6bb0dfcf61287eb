"""Kernels and their quantizers at the start: the transform of the weights undone, the variables set."""

from typing import Any

from satkeras._compat import keras, weight_variables
from satkeras.models.insertion import has_quantizer


def calibrate_weights(model: keras.Model) -> None:
    """Sets the variables of the weight quantizers to suit the kernels."""
    for kernel, quantizer, variables in kernels_of(model).values():
        quantizer.calibrate(kernel.numpy(), variables)


def undo_weight_transforms(model: keras.Model) -> None:
    """Sets every latent kernel, which is a pretrained one, so that the quantized kernel is as close to it as can be."""
    for kernel, quantizer, variables in kernels_of(model).values():
        kernel.assign(quantizer.latent_of(kernel.numpy(), variables))


def carry_over_latent_weights(source: keras.Model, target: keras.Model) -> None:
    """Gives kernels and weight quantizers of `target` the latent kernel and variables of the same layer in `source`.

    From a clamped full-precision model to the next stage. A layer whose quantizer is of another class has another
    transform: it starts at the weights that `source` computes with.
    """
    known = kernels_of(source)
    for name, (latent, quantizer, variables) in kernels_of(target).items():
        trained, before, values = known.get(name, (None, None, {}))
        if type(before) is not type(quantizer):
            latent.assign(quantizer.latent_of(latent.numpy(), variables))
            continue
        latent.assign(trained)
        for shared in set(quantizer.declared_variables) & set(before.declared_variables):
            variables[shared.name].assign(values[shared.name])


def kernels_of(model: keras.Model) -> dict[str, Any]:
    """The `weight_variables` of every layer that has them, by the layer's name."""
    found = {layer.name: weight_variables(layer) for layer in model.layers if has_quantizer(layer)}
    return {name: kernel for name, kernel in found.items() if kernel is not None}
