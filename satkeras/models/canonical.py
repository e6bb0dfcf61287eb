"""A model in canonical form: fresh core layers, activations standing alone, sums of two."""

import dataclasses
from collections.abc import Callable

from satkeras._compat import keras
from satkeras.models.activations import Elementwise, GeneralReLU, Sigmoid, Tanh, name_of, steps_of
from satkeras.models.core import BilinearUpSampling2D, Mean
from satkeras.models.graph import Graph, Node
from satkeras.models.layers import TABLE, Kind, kind_of
from satkeras.models.slopes import GridLeakyReLU, GridPReLU

_layers = keras.layers
Layer = keras.layers.Layer
_CHAINED = (_layers.Add, _layers.Multiply)
_ON_GRID = {_layers.LeakyReLU: GridLeakyReLU, _layers.PReLU: GridPReLU}


@dataclasses.dataclass(frozen=True)
class Part:
    """One of the fresh layers that together compute a layer.

    Attributes:
      layer: not built yet.
      reads: what it is called on: 0 .. n - 1 are the layer's own inputs, n the first part's result, and so on.
    """

    layer: Layer
    reads: tuple[int, ...]


def canonical(source: Graph) -> tuple[Graph, dict[Layer, Layer]]:
    """The graph in canonical form.

    Returns:
      The graph, and for each layer of `source` the fresh one for its weights.
    """
    parts: dict[tuple[Layer, int], list[Part]] = {}
    new: dict[Node, Node] = {}
    nodes: list[Node] = []
    last_means = _last_means(source)
    for node in source.nodes:
        key = node.layer, len(node.inputs)
        if key not in parts:
            finer = node.layer in last_means
            parts[key] = [Part(Mean.from_config(node.layer.get_config()), (0,))] if finer else canonical_parts(*key)
        results = [new[parent] for parent in node.inputs]
        for part in parts[key]:
            name = node.name + part.layer.name.removeprefix(node.layer.name)
            inputs = tuple(results[index] for index in part.reads)
            results.append(Node(name, part.layer, inputs, node.shape, node.training))
            nodes.append(results[-1])
        new[node] = results[-1]
    inputs, outputs = (tuple(new[node] for node in ends) for ends in (source.inputs, source.outputs))
    copies = {layer: fresh[0].layer for (layer, count), fresh in parts.items() if count}
    return Graph(tuple(nodes), inputs, outputs, source.name), copies


def _last_means(source: Graph) -> set[Layer]:
    """The means behind which no layer has a kernel: answers are read from them, and their input's grid is coarse.

    Its values reach further than their mean. What a kernel behind a mean reads, such a grid serves as well.
    """
    before_kernels: set[Node] = set()
    for node in reversed(source.nodes):
        if any(reader in before_kernels or kind_of(reader) is Kind.LINEAR for reader in source.consumers(node)):
            before_kernels.add(node)
    means = [node for node in source.nodes if type(node.layer) is _layers.GlobalAveragePooling2D]
    return {node.layer for node in means} - {node.layer for node in means if node in before_kernels}


def canonical_parts(layer: Layer, inputs: int = 1) -> list[Part]:
    """Fresh layers that together compute `layer`; the first one takes over its weights.

    An activation without a rule is left where it is.

    Args:
      layer: of a float model.
      inputs: how many tensors it is called on.
    """
    config, given = layer.get_config(), {"name": layer.name, "dtype": layer.dtype_policy}
    if type(layer) in _CHAINED:
        return _chain(type(layer), given, inputs)
    if type(layer) is _layers.Average:
        total = _chain(_layers.Add, {**given, "name": f"{layer.name}_sum"}, inputs)
        return [*total, Part(_layers.Rescaling(1 / inputs, **given), (inputs + len(total) - 1,))]
    activation = getattr(layer, "activation", None)
    steps = steps_of(activation) if type(layer) in TABLE else None
    if type(layer) is _layers.ReLU:
        return [Part(_relu(layer), (0,))]
    if type(layer) is _layers.UpSampling2D and layer.interpolation == "bilinear":
        return [Part(BilinearUpSampling2D.from_config(config), (0,))]
    if type(layer) in _ON_GRID:
        return [Part(_ON_GRID[type(layer)].from_config(config), (0,))]
    if steps is None or activation is keras.activations.linear or isinstance(layer, (Elementwise, Sigmoid, Tanh)):
        return [Part(type(layer).from_config(config), tuple(range(inputs)))]
    if type(layer) is _layers.Activation:
        return _activation_parts(steps, given, 0)
    bare = type(layer).from_config({**config, "activation": "linear"})
    name = f"{layer.name}_{name_of(activation)}"
    return [Part(bare, (0,)), *_activation_parts(steps, {**given, "name": name}, 1)]


def _chain(kind: Callable[..., Layer], given: dict, inputs: int) -> list[Part]:
    """A sum or product of two after the other."""
    last = max(inputs - 2, 0)
    names = [given["name"] if index == last else f"{given['name']}_of_{index + 2}" for index in range(last + 1)]
    reads = [tuple(range(min(inputs, 2))), *((inputs + index, index + 2) for index in range(last))]
    return [Part(kind(**{**given, "name": name}), read) for name, read in zip(names, reads, strict=True)]


def _activation_parts(steps, given: dict, first: int) -> list[Part]:
    """The layers of an activation whose input is at place `first`."""
    parts = []
    for step in steps:
        name = given["name"] if step is steps[-1] else f"{given['name']}_{step.name}"
        (layer, *_) = [part.layer for part in canonical_parts(step.make(**{**given, "name": name}), len(step.reads))]
        parts.append(Part(layer, tuple(first + index for index in step.reads)))
    return parts


def _relu(layer: _layers.ReLU) -> Layer:
    """A ReLU with a slope alone is a LeakyReLU."""
    if layer.negative_slope and not layer.threshold and layer.max_value is None:
        return GridLeakyReLU(float(layer.negative_slope), name=layer.name, dtype=layer.dtype_policy)
    kind = GeneralReLU if layer.negative_slope or layer.threshold else _layers.ReLU
    return kind.from_config(layer.get_config())
