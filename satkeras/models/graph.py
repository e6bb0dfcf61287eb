"""A Keras model as a list of layer calls, and back."""

import collections
import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from satkeras._compat import LayerCall, call_of, inner_inputs, is_functional, is_symbolic, keras, takes_training
from satkeras.models.followed import followed, function_of


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One call of one layer, and the tensor that it returns.

    Attributes:
      name: unique in the graph; the layer's name, numbered from the second call of a shared layer on.
      layer: the layer; the same object in every node of a shared layer.
      inputs: the nodes whose tensors are its arguments; none for an InputLayer.
      shape: shape of the tensor without the batch axis.
      training: the `training=` argument of the call, None if there was none.
      tensor: the symbolic tensor in the model that was read, which may be a nested one; None in a graph that was
        rewritten.
      args: the positional arguments of the call, with nodes in the place of tensors; as `kwargs` of use only to
        rewrites, since a layer that is kept takes its inputs alone.
      kwargs: its keyword arguments.
      index: which of the call's results the tensor is.
    """

    name: str
    layer: keras.layers.Layer
    inputs: tuple["Node", ...]
    shape: tuple[int | None, ...]
    training: bool | None = None
    tensor: object = None
    args: tuple = ()
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    index: int = 0


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


def read_graph(model: keras.Model, path: str = "") -> Graph:
    """The calls that lead from a functional or Sequential model's inputs to its outputs.

    Functional and Sequential models inside it, at any depth, are read as their own calls: a layer `conv` inside `base`
    is called `base/conv`. A Lambda, and a layer of a class that is not Keras', is read as the layers and TensorFlow
    operators that it calls, where Keras can follow it.

    Args:
      model: functional or Sequential.
      path: what the names of all calls but the inputs' begin with.
    """
    reader = _Reader()
    inputs = [reader.append(tensor, call_of(tensor).layer.name) for tensor in model.inputs or []]
    outputs = reader.read(model, inputs, path, None)
    return Graph(tuple(reader.nodes), tuple(inputs), tuple(outputs), model.name)


class _Reader:
    """One walk over a model and those inside it."""

    def __init__(self):
        self.nodes: list[Node] = []
        self._names: set[str] = set()
        self._layer_names: dict[keras.layers.Layer, str] = {}
        self._calls: collections.Counter[keras.layers.Layer] = collections.Counter()

    def read(self, model: keras.Model, inputs: list[Node], path: str, training: bool | None) -> list[Node]:
        """Appends the nodes of a model that is called on `inputs`, and returns those of its outputs."""
        known = {_key(tensor): node for tensor, node in zip(model.inputs or [], inputs, strict=True)}
        # A stack instead of recursion: deep residual networks have more layers than Python has frames.
        stack = list(reversed(model.outputs or []))
        while stack:
            call = call_of(stack[-1])
            unread = [tensor for tensor in call.inputs if _key(tensor) not in known]
            if unread:
                stack.extend(reversed(unread))
                continue
            tensor = stack.pop()
            if _key(tensor) not in known:
                known.update(self._read_call(call, tensor, known, path, training))
        return [known[_key(tensor)] for tensor in model.outputs or []]

    def _read_call(self, call: LayerCall, tensor, known, path: str, training: bool | None) -> dict[tuple, Node]:
        """The nodes of a call's results, by key: all of a nested model's, of any other call that of `tensor` alone."""
        args, kwargs = tf.nest.map_structure(
            lambda value: known[_key(value)] if is_symbolic(value) else value, (call.args, call.kwargs)
        )
        own = kwargs.get("training")
        training = training if own is None else own
        name = path + call.layer.name
        inner = _inner_model(call)
        if inner is None:
            inputs = tuple(known[_key(value)] for value in call.inputs)
            training = training if takes_training(call.layer) else None
            return {_key(tensor): self.append(tensor, name, inputs, args, kwargs, training)}
        given = inner_inputs(inner, (args[0] if len(args) == 1 else args) if args else kwargs["inputs"])
        results = self.read(inner, given, f"{name}/", training)
        return {_key(result): node for result, node in zip(call.outputs, results, strict=True)}

    def append(self, tensor, name: str, inputs=(), args=(), kwargs=None, training: bool | None = None) -> Node:
        """A new node of a tensor; `name` is that of its layer's first call, if this is the first."""
        layer, _, index = tensor._keras_history
        name = self._layer_names.setdefault(layer, name)
        number = self._calls[layer]
        self._calls[layer] += 1
        unique = f"{name}_{number}" if number else name
        while unique in self._names:
            number += 1
            unique = f"{name}_{number}"
        self._names.add(unique)
        shape = () if tensor.shape.rank is None else tuple(tensor.shape[1:])  # that of a Python function in a graph
        node = Node(unique, layer, inputs, shape, training, tensor, args, kwargs or {}, index)
        self.nodes.append(node)
        return node


def _inner_model(call: LayerCall) -> keras.Model | None:
    """The model whose calls stand for one call: a nested model, or what the code of a Lambda or own class does."""
    if is_functional(call.layer):
        return call.layer
    function = function_of(call.layer)
    return followed(function, *call.args) if function and call.args and not set(call.kwargs) - {"training"} else None


def _key(tensor) -> tuple[int, int, int]:
    layer, index, result = tensor._keras_history
    return id(layer), index, result


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
        layer = call_of(x).layer
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
