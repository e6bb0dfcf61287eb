"""A Keras model as a list of layer calls, and back."""

import dataclasses
import functools
import inspect

import tensorflow as tf

from satkeras._compat import call_of, keras


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One call of one layer, and the tensor that it returns.

    Attributes:
      name: unique in the graph; the layer's name, numbered from the second call of a shared layer on.
      layer: the layer; the same object in every node of a shared layer.
      inputs: the nodes whose tensors are its arguments; none for an InputLayer.
      shape: shape of the tensor without the batch axis.
      training: the `training=` argument of the call, None if there was none.
      tensor: the symbolic tensor in the model that was read; None in a graph that was rewritten.
    """

    name: str
    layer: keras.layers.Layer
    inputs: tuple["Node", ...]
    shape: tuple[int | None, ...]
    training: bool | None = None
    tensor: object = None


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in an order in which every input comes before its consumer.

    Attributes:
      nodes: all of them.
      inputs: the model's inputs, in the model's order.
      outputs: those whose tensors the model returns, in the model's order.
      name: the model's name.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    name: str

    def consumers(self, node: Node) -> list[Node]:
        """The nodes that read `node`'s tensor, each as often as it reads it."""
        return self._consumers[node]

    @functools.cached_property
    def _consumers(self) -> dict[Node, list[Node]]:
        found: dict[Node, list[Node]] = {node: [] for node in self.nodes}
        for node in self.nodes:
            for parent in node.inputs:
                found[parent].append(node)
        return found


def read_graph(model: keras.Model) -> Graph:
    """The calls that lead from a functional or Sequential model's inputs to its outputs."""
    nodes: dict[tuple[int, int], Node] = {}

    def visit(tensors) -> None:
        # A stack instead of recursion: deep residual networks have more layers than Python has frames.
        stack = list(reversed(tensors))
        while stack:
            layer, index, inputs, kwargs = call_of(stack[-1])
            unvisited = [tensor for tensor in inputs if _key(tensor) not in nodes]
            if unvisited:
                stack.extend(reversed(unvisited))
                continue
            tensor = stack.pop()
            key = _key(tensor)
            if key not in nodes:
                calls = sum(node.layer is layer for node in nodes.values())
                name = layer.name if not calls else f"{layer.name}_{calls}"
                parents = tuple(nodes[_key(tensor)] for tensor in inputs)
                nodes[key] = Node(name, layer, parents, tuple(tensor.shape[1:]), kwargs.get("training"), tensor)

    def nodes_of(tensors) -> tuple[Node, ...]:
        return tuple(nodes[_key(tensor)] for tensor in tensors)

    visit(model.inputs)
    visit(model.outputs)
    return Graph(tuple(nodes.values()), nodes_of(model.inputs), nodes_of(model.outputs), model.name)


def _key(tensor) -> tuple[int, int]:
    layer, index, *_ = call_of(tensor)
    return id(layer), index


def build_model(graph: Graph, wrap=lambda layer: layer) -> keras.Model:
    """Calls the graph's layers on fresh inputs.

    Args:
      graph: its layers are called as they are, not copied.
      wrap: applied once to every layer that is not an InputLayer; what it returns is called instead.
    """
    tensors: dict[Node, object] = {}
    wrapped: dict[int, keras.layers.Layer] = {}
    for node in graph.nodes:
        if not node.inputs:
            config = node.layer.get_config()
            tensors[node] = keras.Input(batch_size=None, shape=node.shape, dtype=config["dtype"], name=node.name)
            continue
        if id(node.layer) not in wrapped:
            wrapped[id(node.layer)] = wrap(node.layer)
        arguments = [tensors[parent] for parent in node.inputs]
        kwargs = {} if node.training is None else {"training": node.training}
        tensors[node] = wrapped[id(node.layer)](_unpack(arguments), **kwargs)
    inputs = [tensors[node] for node in graph.inputs]
    return keras.Model(_unpack(inputs), _unpack([tensors[node] for node in graph.outputs]), name=graph.name)


def in_form_of(like: keras.Model, model: keras.Model) -> keras.Model:
    """The layers of `model` as a model of another's class, with its structure of inputs and outputs and their names.

    A class whose constructor has no arguments for inputs and outputs is replaced by a plain `keras.Model`. An output is
    named after its layer, so where the last layer has another name, an identity layer with the right one follows, if no
    other layer has it.
    """
    names = {layer.name for layer in model.layers}

    def named(x, name):
        layer = call_of(x)[0]
        if name in names:
            return x
        return keras.layers.Activation("linear", name=name, dtype=layer.dtype_policy)(x)

    outputs = [named(x, name) for x, name in zip(model.outputs, like.output_names, strict=True)]
    parameters = inspect.signature(type(like).__init__).parameters
    cls = type(like) if "inputs" in parameters or {"args", "kwargs"} <= parameters.keys() else keras.Model
    return cls(
        tf.nest.pack_sequence_as(like.input, model.inputs),
        tf.nest.pack_sequence_as(like.output, outputs),
        name=model.name,
    )


def _unpack(tensors: list):
    """Keras' convention: one tensor stands alone, several make a list."""
    return tensors[0] if len(tensors) == 1 else tensors
