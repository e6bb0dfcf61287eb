"""Graph rewrites on the way into and out of a quantized model, each a plain function."""

from typing import TypeAlias

import numpy as np
import tensorflow as tf

from satkeras._compat import keras, output_variables, weight_variables
from satkeras.models.activations import Sigmoid, Tanh
from satkeras.models.channel_scale import ChannelScale
from satkeras.models.chosen_levels import ChosenLevels
from satkeras.models.core import BilinearUpSampling2D
from satkeras.models.fixed_grids import GridSigmoid, GridSoftmax, GridTanh, GridUnitNormalization
from satkeras.models.graph import Graph, Node
from satkeras.models.layers import Kind, float_class, kind_of
from satkeras.models.placement import Placement
from satkeras.models.pooling import GridAveragePooling2D, GridGlobalAveragePooling2D
from satkeras.models.quantize_configs import InjectedQuantizeConfig, OutputQuantizeConfig, WeightQuantizeConfig
from satkeras.models.relus import AbsorbedReLU, MaskedReLU, RoundedBias
from satkeras.models.resizing import GridBilinearUpSampling2D
from satkeras.models.slopes import GridLeakyReLU
from satkeras.models.wrapper import QuantizeWrapper
from satkeras.quantizers import Quantizer, QuantizerVariable

Layer: TypeAlias = keras.layers.Layer


def with_quantizers(graph: Graph, placement: Placement) -> tuple[Graph, dict[Layer, InjectedQuantizeConfig]]:
    """The graph with an identity layer wherever a tensor is quantized, and the config of each layer to annotate.

    The identity layers are called `<layer>_output`, or `<layer>_input` where a stream branches off. A learned
    clip replaces the ReLU before it, of a ReLU6's maximum, too (as in SAT's MobileNets): it becomes an
    `AbsorbedReLU`, any other whose result is quantized a `MaskedReLU`. A sum that is joined with other tensors first
    gets a `RoundedBias`. Average pools go to their input's grid, other layers to the one that their operator fixes.

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

    frozen, modes = _frozen(graph), _modes(graph)
    replaced = _relus(graph, placement, names) | _on_grids(graph, names)
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
                none_trains = not any(reader.layer.trainable for reader in readers)
                branches[branch] = quantized(*branch, f"{node.name}_input", none_trains)
            parents = (branches[branch],)
        stored = placement.tensors.get(node)
        layer = replaced.get(node, node.layer)
        training = modes[node] if node in replaced else node.training
        new[node] = add(Node(node.name, layer, parents, node.shape, training))
        if stored is not None:
            new[node] = quantized(new[node], stored, f"{node.name}_output", node in frozen)
        elif kind_of(node) in (Kind.LINEAR, Kind.BATCH_NORM) and _quantizer_behind(node, graph, placement):
            name = new_name(f"{node.name}_rounded", names)
            rounded = RoundedBias(name=name, dtype=node.layer.dtype_policy, trainable=node not in frozen)
            new[node] = add(Node(name, rounded, (new[node],), node.shape, modes[node]))
    inputs = tuple(next(node for node in nodes if node.layer is old.layer) for old in graph.inputs)
    return Graph(tuple(nodes), inputs, tuple(new[node] for node in graph.outputs), graph.name), configs


def _frozen(graph: Graph) -> set[Node]:
    """The nodes whose tensors nothing that trains makes, from the layers they are of up to those that have a kernel."""
    found: set[Node] = set()
    for node in graph.nodes:
        kind, trains = kind_of(node), node.layer.trainable
        parents = bool(node.inputs) and found.issuperset(node.inputs)
        if kind is Kind.LINEAR:
            frozen = not trains
        elif kind is Kind.BATCH_NORM:
            frozen = parents and not trains
        else:
            frozen = parents or (bool(node.inputs) and not trains)
        if frozen:
            found.add(node)
    return found


def _modes(graph: Graph) -> dict[Node, bool | None]:
    """The `training=` argument that each node was called with, or what it reads if the node itself knows none."""
    found: dict[Node, bool | None] = {}
    for node in graph.nodes:
        modes = {found[parent] for parent in node.inputs}
        inherits = node.training is None and kind_of(node) is not Kind.LINEAR and len(modes) == 1
        found[node] = modes.pop() if inherits else node.training
    return found


def _relus(graph: Graph, placement: Placement, names: set[str]) -> dict[Node, Layer]:
    """What replaces a ReLU whose result is quantized, one layer for each call."""
    found: dict[Node, Layer] = {}
    for node in graph.nodes:
        if kind_of(node) is not Kind.RELU:
            continue
        stored = placement.tensors.get(node) or _quantizer_behind(node, graph, placement)
        if stored is not None:
            name = _name_of_call(node, graph, names)
            if stored.replaces_relu and stored.levels[0] >= stored.zero_point:
                found[node] = AbsorbedReLU.from_config({**node.layer.get_config(), "name": name})
            else:
                found[node] = MaskedReLU.from_config({**node.layer.get_config(), "name": name})
    return found


def _quantizer_behind(node: Node, graph: Graph, placement: Placement) -> Quantizer | None:
    """The quantizer that stores a result together with those that it is joined with; None if nothing joins it."""
    joined = False
    while node not in placement.tensors:
        readers = graph.consumers(node)
        if len(readers) != 1 or node in graph.outputs or kind_of(readers[0]) not in (Kind.RELU, Kind.JOIN):
            return None
        (node,) = readers
        joined |= kind_of(node) is Kind.JOIN
        if not joined:
            return None
    return placement.tensors[node]


_ON_GRIDS = {
    keras.layers.AveragePooling2D: GridAveragePooling2D,
    keras.layers.GlobalAveragePooling2D: GridGlobalAveragePooling2D,
    BilinearUpSampling2D: GridBilinearUpSampling2D,
    GridLeakyReLU: GridLeakyReLU,
    keras.layers.Softmax: GridSoftmax,
    keras.layers.UnitNormalization: GridUnitNormalization,
    Sigmoid: GridSigmoid,
    Tanh: GridTanh,
}


def _on_grids(graph: Graph, names: set[str]) -> dict[Node, Layer]:
    """What replaces a layer that rounds its result, one layer for each call.

    What the model returns from a layer with a grid of its own stays as precise as its loss wants it.
    """
    found: dict[Node, Layer] = {}
    for node in graph.nodes:
        rounds = kind_of(node) is Kind.ON_GRID or (kind_of(node) is Kind.FIXED and graph.consumers(node))
        if rounds and type(node.layer) in _ON_GRIDS:
            config = {**node.layer.get_config(), "name": _name_of_call(node, graph, names)}
            found[node] = _ON_GRIDS[type(node.layer)].from_config(config)
    return found


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
        if quantizes_tensor(node.layer)
        or isinstance(node.layer, (RoundedBias, ChannelScale, ChosenLevels))
        or (not has_quantizer(node.layer) and node.layer.name in inner)
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
