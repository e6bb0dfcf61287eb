"""The three phases of Quantization Networks: weights first, then activations with the weights fixed, then both."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from satkeras._compat import first_call, keras, output_variables, value_of, weight_variables
from satkeras.calibration.data import InputData
from satkeras.calibration.sampling import Sample
from satkeras.calibration.units import checked_batches
from satkeras.formulas.kernels import FIXED, OFF, SOFT
from satkeras.models.checks import student_of
from satkeras.models.graph import read_graph
from satkeras.models.insertion import has_quantizer, quantizes_tensor
from satkeras.models.stored import stored_step
from satkeras.quantizers.staircases import StepQuantizer
from satkeras.reports.integers import first_codes

# For each phase, what the quantizers of the weights and those of the activations do.
PHASES = {"weights": (SOFT, OFF), "activations": (FIXED, SOFT), "both": (SOFT, SOFT)}


@dataclasses.dataclass(frozen=True, eq=False)
class Staircase:
    """A learned staircase of a model.

    Attributes:
      wrapper: the layer that holds it.
      quantizer: its quantizer.
      variables: the quantizer's variables.
    """

    wrapper: keras.layers.Layer
    quantizer: StepQuantizer
    variables: Mapping[str, Any]

    @property
    def is_activation(self) -> bool:
        """Whether it quantizes a tensor, not a kernel."""
        return quantizes_tensor(self.wrapper)

    @property
    def is_trained(self) -> bool:
        """Whether it is neither switched off nor fixed."""
        return int(value_of(self.variables["phase"])) == SOFT


def staircases(model: keras.Model) -> list[Staircase]:
    """The learned staircases of a quantized model, those kept in full precision left out."""
    found = []
    for layer in student_of(model).layers:
        if has_quantizer(layer):
            *_, quantizer, variables = weight_variables(layer) or output_variables(layer)
            if isinstance(quantizer, StepQuantizer) and quantizer.num_bits is not None:
                found.append(Staircase(layer, quantizer, variables))
    return found


def required_staircases(model: keras.Model) -> list[Staircase]:
    """The learned staircases of a quantized model.

    Raises:
      ValueError: it has none.
    """
    found = staircases(model)
    if not found:
        raise ValueError(f"A model quantized with scheme='qn' is required. Received: {model.name!r}")
    return found


def set_phase(model: keras.Model, phase: str) -> None:
    """Says what the next `fit` trains; compile the model after it.

    A phase is part of the model's weights: it is saved and loaded with them.

    Args:
      model: what `quantize_model` returned for scheme "qn".
      phase: "weights": the activations' staircases are switched off, their tensors keep 8 bits.
        "activations": kernels keep the levels they have and do not train; batch norms do.
        "both": everything trains. A new model is in this phase.

    Raises:
      ValueError: no such phase; the model has no quantizers of scheme "qn"; activations have no thresholds yet.
    """
    if phase not in PHASES:
        raise ValueError(f"phase must be one of {sorted(PHASES)}. Received: phase={phase!r}")
    found = required_staircases(model)
    of_weights, of_activations = PHASES[phase]
    if of_activations != OFF:
        _require_thresholds(found)
    for staircase in found:
        staircase.variables["phase"].assign(of_activations if staircase.is_activation else of_weights)
    for layer in model.layers:
        if has_quantizer(layer) and not quantizes_tensor(layer):
            if of_weights == FIXED:
                _hold(layer)
            else:
                _free(layer)


def _hold(wrapper) -> None:
    """Freezes a layer, unless it is frozen already."""
    if wrapper.trainable:
        wrapper.trainable, wrapper.held = False, True


def _free(wrapper) -> None:
    """Lets a layer that `_hold` froze train again."""
    if wrapper.held:
        wrapper.trainable, wrapper.held = True, False


def set_thresholds(model: keras.Model, data: InputData) -> None:
    """Sets the activations' thresholds from data, by k-means of each tensor's values while no activation is quantized.

    Call it before activations train: with a new model, or after phase "weights". Those of frozen layers stay.

    Args:
      model: what `quantize_model` returned for scheme "qn".
      data: some hundred inputs, as the `calibration_data` of `quantize_model`; the paper uses 1,000.

    Raises:
      TypeError: the data is of no such kind.
      ValueError: the model has no quantizers of scheme "qn"; the data is empty, of another shape, or out of range.
    """
    found = {staircase.wrapper: staircase for staircase in required_staircases(model) if staircase.is_activation}
    graph = read_graph(model)
    batches = checked_batches(model, data)
    next(iter(batches))  # raises for data that do not fit, whether or not there is anything to set
    nodes = [node for node in graph.nodes if node.layer in found and _needs_thresholds(found[node.layer])]
    if not nodes:
        return
    phases = {layer: int(value_of(staircase.variables["phase"])) for layer, staircase in found.items()}
    for staircase in found.values():
        staircase.variables["phase"].assign(OFF)
    samples = [Sample() for _ in nodes]
    probe = keras.Model(model.inputs, [node.inputs[0].tensor for node in nodes])
    try:
        for batch in batches:
            for sample, tensor in zip(samples, tf.nest.flatten(probe(batch, training=False)), strict=True):
                sample.add(tensor)
    finally:
        for layer, staircase in found.items():
            staircase.variables["phase"].assign(phases[layer])
    for node, sample in zip(nodes, samples, strict=True):
        staircase = found[node.layer]
        staircase.quantizer.calibrate(sample.values, staircase.variables)


def _needs_thresholds(staircase: Staircase) -> bool:
    """Whether it trains, or was frozen before it had any."""
    return staircase.wrapper.trainable or not staircase.quantizer.is_initialized(staircase.variables)


def freeze(model: keras.Model) -> None:
    """Snaps the activations' thresholds to the 8-bit grid of the tensors they read: midway between two codes.

    No prediction changes, because the tensors are on that grid already. But the thresholds move off the codes
    themselves, where float32 rounding could decide; call it at the end of training.

    Args:
      model: a trained model of scheme "qn".

    Raises:
      ValueError: the model has no quantizers of scheme "qn"; activations have no thresholds yet, or were never trained.
    """
    found = required_staircases(model)
    _require_thresholds(found)
    for staircase in found:
        if staircase.is_activation:
            step_size = float(stored_step(first_call(staircase.wrapper).parent_nodes[0]))
            codes = first_codes(staircase.quantizer, staircase.variables, step_size * np.arange(256))
            staircase.quantizer.move_thresholds((codes - 0.5) * step_size, staircase.variables)


def _require_thresholds(found: list[Staircase]) -> None:
    unset = [
        staircase.wrapper.name for staircase in found if not staircase.quantizer.is_initialized(staircase.variables)
    ]
    if unset:
        raise ValueError(f"Call satkeras.set_thresholds(model, images) first. Without thresholds: {unset}")
