"""A quantized model whose file gives the same integers on every runtime."""

import numpy as np

from satkeras._compat import keras
from satkeras.models.channel_scales import (
    set_channel_scales,
    set_chosen_levels,
    with_channel_scales,
    with_chosen_levels,
    without_choices,
)
from satkeras.models.checks import opened, require_quantized
from satkeras.models.graph import Graph, read_graph
from satkeras.models.insertion import has_quantizer, quantizes_tensor
from satkeras.models.layers import Kind, kind_of
from tflite_export.lowering.lower import make_plan
from tflite_export.operators import LinearOperator, Multiply
from tflite_export.plan import Plan
from tflite_export.portability.gates import gate_choices
from tflite_export.portability.plans import channels_of
from tflite_export.portability.search import Choice, portable_choice

_Choices = dict[str, tuple[LinearOperator, Choice]]


def portable_model(model: keras.Model) -> keras.Model:
    """A copy of a trained quantized model whose sums keep clear of what runtimes round differently.

    Runtimes part on a few sums next to the ties between two levels. Behind each weighted sum that can reach one the
    copy has a `ChannelScale` layer, which multiplies a channel by a factor next to 1 and adds a fraction of a level to
    its bias, so that none can. Before a product of two tensors, a gate of squeeze-and-excite or swish, it has a
    `ChosenLevels` layer, which keeps one of them to integers on whose products runtimes agree. It predicts what its
    file computes, as every quantized model does, and is saved and loaded with its choices. The model itself is not
    changed.

    The copy trains on, after `compile`; the channel scales stay as they are. Its file is then no longer portable, until
    `portable_model` decides them anew, for the weights that it has then.

    Args:
      model: what `satkeras.quantize_model` returned, trained, or a copy that this function returned.

    Returns:
      A tf_keras model; `export_tflite(copy, path, portable=True)` proves its file and writes it.

    Raises:
      ExportError: a layer cannot be lowered exactly.
      TypeError, ValueError: not a quantized tf_keras model.
    """
    model = opened(model)
    require_quantized(model, "portable_model")
    model = without_choices(model)
    plan = make_plan(model)
    choices = _choices(plan)
    even = _to_be_even(read_graph(model), choices)
    if even:
        model = with_channel_scales(model, (), even)
        choices = _choices(make_plan(model), choices)
    changed = {call: _scale(*found) for call, found in choices.items() if found[1].changes}
    copy = with_channel_scales(model, changed)
    set_channel_scales(copy, changed)
    multiplies = any(isinstance(operator, Multiply) for operator in plan.operators)
    # Which integers occur together depends on the scales.
    gates = gate_choices(make_plan(copy)) if multiplies else {}
    if gates:
        copy = with_chosen_levels(copy, {call: choice.place for call, choice in gates.items()})
        set_channel_scales(copy, changed)
        set_chosen_levels(copy, {call: (choice.codes, choice.factor) for call, choice in gates.items()})
    return copy


def _choices(plan: Plan, known: _Choices | None = None) -> _Choices:
    """For each call of the model that has sums, the operator that computes them and what their numbers should be.

    Args:
      plan: of the model.
      known: what was found before some kernels were made even; it stays for all others.
    """
    found: _Choices = {}
    for operator in plan.operators:
        call = operator.origin.call if isinstance(operator, LinearOperator) and operator.origin is not None else None
        # Where several operators compute one call, each on a grid of its own, the first one decides.
        if call is not None and call not in found:
            is_known = known is not None and not operator.origin.even
            found[call] = known[call] if is_known else (operator, portable_choice(channels_of(operator)))
    return found


def _to_be_even(graph: Graph, choices: _Choices) -> dict[str, list[int]]:
    """The channels of layers with a kernel that need even weights."""
    nodes = {node.name: node for node in graph.nodes}
    found: dict[str, set[int]] = {}
    for call, (_, choice) in choices.items():
        node = nodes[call]
        while kind_of(node) is Kind.BATCH_NORM:
            (node,) = node.inputs
        channels = np.flatnonzero(choice.needs_even_weights)
        if len(channels) and has_quantizer(node.layer) and not quantizes_tensor(node.layer):
            found.setdefault(node.layer.name, set()).update(channels.tolist())
    return {name: sorted(channels) for name, channels in found.items()}


def _scale(operator: LinearOperator, choice: Choice) -> tuple[np.ndarray, np.ndarray]:
    """The factor and offset of a channel scale with which the plan comes to the numbers chosen."""
    (x,), output, origin = operator.inputs, operator.output, operator.origin
    to_file = (x.step / float(x.scale)) * (float(output.scale) / output.step)
    factor = choice.weight_scale.astype(np.float64) / (origin.unit * to_file)
    factor = np.where(choice.weight_scale == operator.weight_scale, 1.0, factor)
    offset = choice.bias * (x.step * origin.unit * factor) - factor * origin.bias
    return factor, np.where((factor == 1) & (choice.bias == operator.bias), 0.0, offset)
