"""What an exporter may choose for each channel of a quantized model: its scale, its bias, and even weights."""

from collections.abc import Iterable, Mapping

import numpy as np

from satkeras._compat import keras, weight_variables
from satkeras.models.channel_scale import ChannelScale
from satkeras.models.chosen_levels import ChosenLevels
from satkeras.models.graph import Graph, Node, build_model, in_form_of, read_graph
from satkeras.models.insertion import has_quantizer, new_name
from satkeras.models.quantize_configs import WeightQuantizeConfig
from satkeras.quantizers.even_channels import EvenChannelsQuantizer

_CHOSEN = (ChannelScale, ChosenLevels)


def without_choices(model: keras.Model) -> keras.Model:
    """The model, or a copy with the identity for every channel scale and chosen level, and no channel made even."""
    layers = [node.layer for node in read_graph(model).nodes]
    if not any(isinstance(layer, _CHOSEN) or even_channels(layer) for layer in layers):
        return model
    return _copied(model, read_graph(model), {layer.name: () for layer in layers if even_channels(layer)})


def with_channel_scales(
    model: keras.Model, calls: Iterable[str], even: Mapping[str, Iterable[int]] | None = None
) -> keras.Model:
    """A copy of a quantized model with a channel scale, the identity, behind some of its calls.

    Args:
      model: what `quantize_model` returned; it is not changed.
      calls: names of nodes of its graph; where a channel scale reads the result already, that one stays.
      even: for layers with a kernel, by name, the channels whose integers become even.

    Returns:
      A model of the same class and names, not compiled, whose other weights are the model's.
    """
    graph = read_graph(model)
    new = frozenset(call for call in calls if scale_behind(graph, call) is None)
    return _copied(model, _scaled(graph, new), even or {})


def set_channel_scales(model: keras.Model, scales: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Sets `(factor, offset)` of the channel scales behind calls, by the calls' names."""
    graph = read_graph(model)
    for call, values in scales.items():
        layer = scale_behind(graph, call)
        for variable, value in zip((layer.factor, layer.offset), values, strict=True):
            variable.assign(value)


def scale_behind(graph: Graph, call: str) -> ChannelScale | None:
    """The channel scale that reads a call's result; None if none does."""
    node = next(node for node in graph.nodes if node.name == call)
    readers = (reader.layer for reader in graph.consumers(node))
    return next((layer for layer in readers if isinstance(layer, ChannelScale)), None)


def with_chosen_levels(model: keras.Model, gates: Mapping[str, int]) -> keras.Model:
    """A copy of a quantized model with chosen levels, the identity, before some of its calls.

    Args:
      model: what `quantize_model` returned; it is not changed.
      gates: for names of nodes of its graph, which of their inputs; where it has chosen levels already, they stay.

    Returns:
      A model of the same class and names, not compiled, all of whose choices are the identity.
    """
    graph = read_graph(model)
    return _copied(model, _gated(graph, {call: place for call, place in gates.items() if not _gate(graph, call)}), {})


def set_chosen_levels(model: keras.Model, choices: Mapping[str, tuple[np.ndarray, float]]) -> None:
    """Sets `(codes, factor)` of the chosen levels before calls, by the calls' names."""
    graph = read_graph(model)
    for call, values in choices.items():
        layer = _gate(graph, call)
        for variable, value in zip((layer.codes, layer.factor), values, strict=True):
            variable.assign(value)


def _gate(graph: Graph, call: str) -> ChosenLevels | None:
    node = next(node for node in graph.nodes if node.name == call)
    return next((one.layer for one in node.inputs if isinstance(one.layer, ChosenLevels)), None)


def _gated(graph: Graph, gates: Mapping[str, int]) -> Graph:
    names = {node.layer.name for node in graph.nodes}
    new: dict[Node, Node] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        parents = [new[parent] for parent in node.inputs]
        if node.name in gates:
            gate = parents[gates[node.name]]
            name = new_name(f"{node.name.replace('/', '_')}_gate_levels", names)
            chosen = Node(name, ChosenLevels(name=name, dtype=node.layer.dtype_policy), (gate,), gate.shape)
            parents[gates[node.name]] = chosen
            nodes.append(chosen)
        new[node] = Node(node.name, node.layer, tuple(parents), node.shape, node.training)
        nodes.append(new[node])
    inputs, outputs = (tuple(new[node] for node in ends) for ends in (graph.inputs, graph.outputs))
    return Graph(tuple(nodes), inputs, outputs, graph.name)


def _scaled(graph: Graph, calls: frozenset[str]) -> Graph:
    names = {node.layer.name for node in graph.nodes}
    new: dict[Node, Node] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        parents = tuple(new[parent] for parent in node.inputs)
        new[node] = Node(node.name, node.layer, parents, node.shape, node.training)
        nodes.append(new[node])
        if node.name in calls:
            name = new_name(f"{node.name.replace('/', '_')}_scale", names)
            scale = ChannelScale(name=name, dtype=node.layer.dtype_policy)
            new[node] = Node(name, scale, (new[node],), node.shape)
            nodes.append(new[node])
    inputs = tuple(next(copy for copy in nodes if copy.layer is old.layer) for old in graph.inputs)
    return Graph(tuple(nodes), inputs, tuple(new[node] for node in graph.outputs), graph.name)


def _copied(model: keras.Model, graph: Graph, even: Mapping[str, Iterable[int]]) -> keras.Model:
    copies = []

    def copied(layer):
        config = layer.get_config()
        if layer.name in even:
            quantize_config = WeightQuantizeConfig(_with_even(layer, tuple(even[layer.name])))
            config["quantize_config"] = keras.utils.legacy.serialize_keras_object(quantize_config)
        copies.append((layer, type(layer).from_config(config)))
        return copies[-1][1]

    result = in_form_of(model, build_model(graph, wrap=copied))
    for layer, copy in copies:
        if not isinstance(layer, _CHOSEN):
            copy.set_weights(layer.get_weights())
    return result


def even_channels(layer: keras.layers.Layer) -> tuple[int, ...]:
    """The channels of a layer's kernel whose integers were made even."""
    kernel = weight_variables(layer) if has_quantizer(layer) else None
    return kernel[1].channels if kernel is not None and isinstance(kernel[1], EvenChannelsQuantizer) else ()


def _with_even(layer, channels: tuple[int, ...]):
    """The quantizer of a layer's kernel with other channels made even."""
    _, quantizer, _ = weight_variables(layer)
    own = quantizer.quantizer if isinstance(quantizer, EvenChannelsQuantizer) else quantizer
    axis = -2 if isinstance(layer.layer, (keras.layers.DepthwiseConv2D, keras.layers.Conv2DTranspose)) else -1
    return EvenChannelsQuantizer(own, channels, axis) if channels else own
