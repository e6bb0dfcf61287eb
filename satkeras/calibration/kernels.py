"""Kernels and their quantizers at the start: the transform of the weights undone, the variables set."""

from typing import Any

from satkeras._compat import keras, output_variables, value_of, weight_variables
from satkeras.models.graph import Node, read_graph
from satkeras.models.insertion import has_quantizer, quantizes_tensor
from satkeras.quantizers import Quantizer


def calibrate_weights(model: keras.Model) -> None:
    """Sets the variables of the weight quantizers to suit the kernels."""
    for kernel, quantizer, variables in kernels_of(model).values():
        quantizer.calibrate(kernel.numpy(), variables)


def undo_weight_transforms(model: keras.Model) -> None:
    """Sets every latent kernel, which is a pretrained one, so that the quantized kernel is as close to it as can be."""
    for kernel, quantizer, variables in kernels_of(model).values():
        kernel.assign(quantizer.latent_of(kernel.numpy(), variables))


def carry_over(source: keras.Model, target: keras.Model) -> None:
    """Gives the quantizers of `target` what those of the same layers and tensors in `source` have learned.

    From a model at other widths, or of the clamped full-precision stage, to the next stage: latent kernels, magnitudes,
    clip values and ranges stay, a step grows with the root of the levels that are lost. A kernel whose quantizer is of
    another class has another transform: it starts at the weights that `source` computes with.
    """
    known = kernels_of(source)
    for name, (latent, quantizer, variables) in kernels_of(target).items():
        trained, before, values = known.get(name, (None, None, {}))
        if type(before) is not type(quantizer):
            latent.assign(quantizer.latent_of(latent.numpy(), variables))
            continue
        latent.assign(trained)
        _carry_over_variables(before, values, quantizer, variables)
    tensors = {layer.name: output_variables(layer) for layer in source.layers if quantizes_tensor(layer)}
    for node in read_graph(target).nodes:
        if not quantizes_tensor(node.layer):
            continue
        quantizer, variables = output_variables(node.layer)
        # A branch off a stream has no quantizer of its own where both are as wide: then it had the stream's.
        for before, values in (tensors[name] for name in _quantizers_up_to(node) if name in tensors):
            if type(before) is type(quantizer):
                _carry_over_variables(before, values, quantizer, variables)
                break


def _quantizers_up_to(node: Node) -> list[str]:
    """The name of a layer that quantizes a tensor, and of those that quantize it before."""
    return [node.layer.name, *_quantizers_up_to(node.inputs[0])] if quantizes_tensor(node.layer) else []


def _carry_over_variables(before: Quantizer, values, quantizer: Quantizer, variables) -> None:
    shapes = [{(one.name, one.shape) for one in each.declared_variables} for each in (before, quantizer)]
    if shapes[0] != shapes[1]:  # another number of levels has other thresholds, full precision has no step
        return
    for declared in quantizer.declared_variables:
        value = values[declared.name]
        if declared.role == "step" and before.num_bits != quantizer.num_bits:
            # As LSQ's first step goes with the levels; its range, at 8 bits far beyond the weights, would not do.
            value = value_of(value) * (before.levels[1] / quantizer.levels[1]) ** 0.5
        variables[declared.name].assign(value)


def kernels_of(model: keras.Model) -> dict[str, Any]:
    """The `weight_variables` of every layer that has them, by the layer's name."""
    found = {layer.name: weight_variables(layer) for layer in model.layers if has_quantizer(layer)}
    return {name: kernel for name, kernel in found.items() if kernel is not None}
