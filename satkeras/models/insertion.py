"""Graph rewrites on the way into and out of a quantized model, each a plain function."""

from typing import TypeAlias

import numpy as np
import tensorflow as tf

from satkeras._compat import keras, output_variables, weight_variables
from satkeras.models.graph import Graph, Node
from satkeras.models.layers import Kind, canonical_layers, float_class, kind_of
from satkeras.models.placement import Placement
from satkeras.models.pooling import GridAveragePooling2D, GridGlobalAveragePooling2D
from satkeras.models.quantize_configs import InjectedQuantizeConfig, OutputQuantizeConfig, WeightQuantizeConfig
from satkeras.models.relus import AbsorbedReLU, MaskedReLU
from satkeras.models.wrapper import QuantizeWrapper
from satkeras.quantizers import Quantizer, QuantizerVariable

Layer: TypeAlias = keras.layers.Layer


def canonical(source: Graph) -> tuple[Graph, dict[Layer, Layer]]:
    """The graph in fresh, unbuilt layers, activations standing alone.

    Returns:
      The graph, and for each layer of `source` the fresh one for its weights.
    """
    fresh = {node.layer: canonical_layers(node.layer) for node in source.nodes}
    new: dict[Node, Node] = {}
    nodes: list[Node] = []
    for node in source.nodes:
        parents = tuple(new[parent] for parent in node.inputs)
        for layer in fresh[node.layer]:
            name = node.name + layer.name.removeprefix(node.layer.name)
            new[node] = Node(name, layer, parents, node.shape, node.training)
            nodes.append(new[node])
            parents = (new[node],)
    inputs, outputs = (tuple(new[node] for node in ends) for ends in (source.inputs, source.outputs))
    copies = {node.layer: fresh[node.layer][0] for node in source.nodes if node.inputs}
    return Graph(tuple(nodes), inputs, outputs, source.name), copies


def with_quantizers(graph: Graph, placement: Placement) -> tuple[Graph, dict[Layer, InjectedQuantizeConfig]]:
    """The graph with an identity layer wherever a tensor is quantized, and the config of each layer to annotate.

    The identity layers are called `<layer>_output`, or `<layer>_input` where a stream branches off. A learned
    clip replaces the ReLU before it, of a ReLU6's maximum, too (as in SAT's MobileNets): it becomes an
    `AbsorbedReLU`, any other whose result is quantized a `MaskedReLU`. Average pools go to their input's grid.

    A quantizer is frozen with the layers whose tensor it is of, that of a branch with those which read the branch; and
    it runs in inference mode where they were called with `training=False`.
    """
    configs: dict[Layer, InjectedQuantizeConfig] = {
        layer: WeightQuantizeConfig(quantizer) for layer, quantizer in placement.weights.items()
    }
    names = {node.name for node in graph.nodes}
    new: dict[Node, Node] = {}
    branches: dict[tuple[Node, Quantizer], Node] = {}
    nodes: list[Node] = []

    def add(node: Node) -> Node:
        nodes.append(node)
        return node

    def quantized(source: Node, quantizer: Quantizer, name: str, frozen: bool) -> Node:
        name = new_name(name, names)
        layer = keras.layers.Activation("linear", name=name, dtype=source.layer.dtype_policy, trainable=not frozen)
        configs[layer] = OutputQuantizeConfig(quantizer)
        return add(Node(name, layer, (source,), source.shape, source.training))

    replaced = _relus(graph, placement, names) | _averages(graph, names)
    for node in graph.nodes:
        parents = tuple(new[parent] for parent in node.inputs)
        if node in placement.branches:
            branch = parents[0], placement.branches[node]
            if branch not in branches:
                readers = [
                    reader
                    for reader, wanted in placement.branches.items()
                    if wanted == branch[1] and reader.inputs[0] is node.inputs[0]
                ]
                frozen = all(not reader.layer.trainable for reader in readers)
                branches[branch] = quantized(*branch, f"{node.name}_input", frozen)
            parents = (branches[branch],)
        stored = placement.tensors.get(node)
        layer = replaced.get(node, node.layer)
        training = _mode(node) if node in replaced else node.training
        new[node] = add(Node(node.name, layer, parents, node.shape, training))
        if stored is not None:
            new[node] = quantized(new[node], stored, f"{node.name}_output", _is_frozen(node))
    inputs = tuple(next(node for node in nodes if node.layer is old.layer) for old in graph.inputs)
    return Graph(tuple(nodes), inputs, tuple(new[node] for node in graph.outputs), graph.name), configs


def _is_frozen(node: Node) -> bool:
    """Whether nothing that trains makes a tensor: from the layers it is of, up to those that have a kernel."""
    if kind_of(node) in (Kind.INPUT, Kind.LINEAR):
        return kind_of(node) is Kind.LINEAR and not node.layer.trainable
    parents = all(map(_is_frozen, node.inputs))
    if kind_of(node) is Kind.BATCH_NORM:
        return parents and not node.layer.trainable
    return parents or not node.layer.trainable


def _mode(node: Node) -> bool | None:
    """The `training=` argument that a node was called with, or what it reads if the node itself knows none."""
    if node.training is not None or kind_of(node) in (Kind.INPUT, Kind.LINEAR):
        return node.training
    modes = {_mode(parent) for parent in node.inputs}
    return modes.pop() if len(modes) == 1 else None


def _relus(graph: Graph, placement: Placement, names: set[str]) -> dict[Node, Layer]:
    """What replaces a ReLU whose result is quantized, one layer for each call."""
    found: dict[Node, Layer] = {}
    for node in graph.nodes:
        stored = placement.tensors.get(node)
        if stored is not None and kind_of(node) is Kind.RELU:
            name = _name_of_call(node, graph, names)
            if stored.replaces_relu:
                found[node] = AbsorbedReLU.from_config({**node.layer.get_config(), "name": name})
            else:
                found[node] = MaskedReLU.from_config({**node.layer.get_config(), "name": name})
    return found


def _averages(graph: Graph, names: set[str]) -> dict[Node, Layer]:
    """What replaces an average pool, one layer for each call."""
    on_grid = {
        keras.layers.AveragePooling2D: GridAveragePooling2D,
        keras.layers.GlobalAveragePooling2D: GridGlobalAveragePooling2D,
    }
    return {
        node: on_grid[type(node.layer)].from_config(
            {**node.layer.get_config(), "name": _name_of_call(node, graph, names)}
        )
        for node in graph.nodes
        if kind_of(node) is Kind.AVERAGE
    }


def _name_of_call(node: Node, graph: Graph, names: set[str]) -> str:
    """The layer's name for its first call, a new one for every other: layers that know their input are not shared."""
    first = next(call for call in graph.nodes if call.layer is node.layer)
    return node.layer.name if node is first else new_name(node.name, names)


def new_name(name: str, names: set[str]) -> str:
    """A name that is not among `names`, and now is."""
    while name in names:
        name += "_"
    names.add(name)
    return name


def without_quantizers(graph: Graph) -> tuple[Graph, dict[Layer, Layer]]:
    """The float graph, in fresh layers, inside a quantized model's; the inverse of `with_quantizers`.

    Returns:
      The graph, and for each layer of `graph` that has weights of its own the fresh one for them.
    """
    inner = {node.layer.layer.name for node in graph.nodes if has_quantizer(node.layer)}
    # An output's name, given back to it by an identity layer, belongs to the layer inside again.
    dropped = {
        node.layer
        for node in graph.nodes
        if quantizes_tensor(node.layer) or (not has_quantizer(node.layer) and node.layer.name in inner)
    }
    fresh = {node.layer: _unwrapped(node.layer) for node in graph.nodes if node.layer not in dropped}
    new: dict[Node, Node] = {}
    for node in graph.nodes:
        parents = tuple(new[parent] for parent in node.inputs)
        if node.layer in dropped:
            new[node] = parents[0]
        else:
            layer = fresh[node.layer]
            name = node.name.replace(node.layer.name, layer.name, 1)
            new[node] = Node(name, layer, parents, node.shape, node.training)
    nodes = tuple(dict.fromkeys(new.values()))
    inputs, outputs = (tuple(new[node] for node in ends) for ends in (graph.inputs, graph.outputs))
    copies = {layer: copy for layer, copy in fresh.items() if not isinstance(layer, keras.layers.InputLayer)}
    return Graph(nodes, inputs, outputs, graph.name), copies


def has_quantizer(layer: Layer) -> bool:
    """Whether a layer of a quantized model is one of satkeras' wrappers."""
    return isinstance(layer, QuantizeWrapper)


def quantizes_tensor(layer: Layer) -> bool:
    """Whether a layer of a quantized model is an identity that quantizes the tensor it passes on."""
    return has_quantizer(layer) and isinstance(layer.quantize_config, OutputQuantizeConfig)


def quantizer_variables(layer: Layer) -> list[tuple[QuantizerVariable, tf.Variable]]:
    """The variables of the quantizer in a layer for which `has_quantizer` holds, and what it declares about each."""
    *_, quantizer, variables = weight_variables(layer) or output_variables(layer)
    return [(declared, variables[declared.name]) for declared in quantizer.declared_variables]


def float_weights(layer: Layer) -> list[np.ndarray]:
    """The weights that a layer of a quantized model computes with, unrounded, in the order of the float layer's."""
    if not has_quantizer(layer):
        return layer.get_weights()
    latent, quantizer, variables = weight_variables(layer)
    bias = [layer.layer.bias.numpy()] if layer.layer.use_bias else []
    return [np.asarray(quantizer.unrounded(latent, variables)), *bias]


def _unwrapped(layer: Layer) -> Layer:
    inner = layer.layer if has_quantizer(layer) else layer
    return float_class(inner).from_config(inner.get_config())
