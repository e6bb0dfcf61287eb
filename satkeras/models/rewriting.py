"""Any Keras model as a model of core layers alone: nested models opened, every call kept or rewritten."""

import dataclasses

import tensorflow as tf

from satkeras._compat import call_of, keras
from satkeras.models.followed import (
    class_of,
    followed,
    has_own_activation,
    of_keras_class,
    source_line,
    without_activation,
)
from satkeras.models.graph import Graph, Node, in_form_of, read_graph
from satkeras.models.layers import Kind, kind_of, problem_of
from satkeras.models.rewrites import Call, Refused, rewrite_of
from satkeras.models.rewrites.call import CoreLayers
from satkeras.models.unsupported import unknown_class


@dataclasses.dataclass(frozen=True)
class Finding:
    """What becomes of one call of a layer.

    Attributes:
      name: of the call, with the path to it.
      layer: its class, or the TensorFlow operator.
      core: the classes of the core layers that compute it; its own alone if it is one.
      problem: why it is refused, and the way out; "" if it is not.
    """

    name: str
    layer: str
    core: tuple[str, ...]
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class CoreModel:
    """A model in core layers.

    Attributes:
      graph: the user's model, as it was read.
      model: it in core layers, with its weights; the user's own if it is of core layers already. None if a layer is
        refused.
      findings: one for each call but the inputs', in an order that can be computed.
    """

    graph: Graph
    model: keras.Model | None
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        rows = [(each.name, each.layer, each.problem or " + ".join(each.core) or "-") for each in self.findings]
        wide = [max(len(row[i]) for row in rows) for i in (0, 1)] if rows else [0, 0]
        return "\n".join(f"{name:{wide[0]}}  {layer:{wide[1]}}  {result}" for name, layer, result in rows)

    @property
    def cut(self) -> tuple[str, ...]:
        """Names of the last calls before which nothing is refused, to end a model there; () if there are none."""
        refused = {finding.name for finding in self.findings if finding.problem}
        whole: set[Node] = set()
        for node in self.graph.nodes:
            if node.name not in refused and all(parent in whole for parent in node.inputs):
                whole.add(node)
        ends = (
            node
            for node in whole
            if node.inputs and (node in self.graph.outputs or any(x not in whole for x in self.graph.consumers(node)))
        )
        linear = {node.name for node in _ancestors(self.graph, tuple(whole)).nodes if kind_of(node) is Kind.LINEAR}
        names = {node.name for node in ends}
        return tuple(node.name for node in self.graph.nodes if node.name in names) if linear else ()


def core_model(
    model: keras.Model,
    input_shape: tuple[int, ...] | None = None,
    outputs: "list[str] | None" = None,
) -> CoreModel:
    """Rewrites a functional or Sequential model; the model itself is not changed.

    Args:
      model: the user's.
      input_shape: (h, w, channels) or the like for a model whose inputs leave sizes open.
      outputs: names of calls, to end there; the model's own outputs by default.
    """
    graph = read_graph(model)
    ends = graph.outputs if outputs is None else _named(graph, outputs)
    if outputs is not None:
        graph = _ancestors(graph, ends)
    if input_shape is None and outputs is None and not _is_nested(graph):
        findings = _as_it_is(graph)
        if findings is not None:
            return CoreModel(graph, model, findings)
    walk = _Walk(graph, {node: _new_input(node, input_shape) for node in graph.inputs}, CoreLayers())
    findings = tuple(walk.visit(node) for node in graph.nodes if node.inputs)
    if any(finding.problem for finding in findings):
        return CoreModel(graph, None, findings)
    return CoreModel(graph, _form(model, walk, outputs is None), findings)


def _as_it_is(graph: Graph) -> tuple[Finding, ...] | None:
    """The findings of a graph all of whose calls are kept, so that no layer need be copied; None for any other."""
    walk = _Walk(graph, {node: node.tensor for node in graph.inputs}, _NoLayers())
    findings = []
    try:
        for node in graph.nodes:
            if node.inputs:
                findings.append(walk.visit(node))
                if walk.values[node] is not node.tensor:
                    return None
    except _Rewritten:
        return None
    return tuple(findings)


class _Rewritten(Exception):
    """A call is not kept as it is."""


class _NoLayers(CoreLayers):
    """Of a walk over the user's own tensors, on which no other layer may be called: the model would know of it."""

    def layer(self, node, key, name, make):
        raise _Rewritten


def _new_input(node: Node, input_shape):
    shape = node.shape if input_shape is None else tuple(input_shape)
    return keras.Input(shape, dtype=node.layer.get_config()["dtype"], name=node.name)


def _form(model: keras.Model, walk: "_Walk", whole: bool) -> keras.Model:
    inputs = [walk.values[node] for node in walk.graph.inputs]
    results = [walk.values[node] for node in walk.graph.outputs]
    core = keras.Model(inputs, results, name=model.name)
    for layer, weights in walk.core.weights.items():
        if layer.built and len(weights):
            layer.set_weights(weights)
    return in_form_of(model, core) if whole else core


def _is_nested(graph: Graph) -> bool:
    return any("/" in node.name and "/" not in node.layer.name for node in graph.nodes)


def _named(graph: Graph, names) -> tuple[Node, ...]:
    names = [names] if isinstance(names, str) else list(names)
    by_name = {node.name: node for node in graph.nodes}
    unknown = [name for name in names if name not in by_name]
    if unknown or not names:
        raise ValueError(
            f"outputs must be names of layers of {graph.name!r}. Received: {names}, of which {unknown} are none of "
            f"{list(by_name)}"
        )
    return tuple(by_name[name] for name in names)


def _ancestors(graph: Graph, ends: tuple[Node, ...]) -> Graph:
    """The part of a graph that some of its nodes need."""
    needed, stack = set(ends), list(ends)
    while stack:
        for parent in stack.pop().inputs:
            if parent not in needed:
                needed.add(parent)
                stack.append(parent)
    nodes = tuple(node for node in graph.nodes if node in needed)
    return Graph(nodes, tuple(node for node in graph.inputs if node in needed), ends, graph.name)


def _is_size(node: Node) -> bool:
    """Whether an operator computes sizes, such as `tf.shape(x)[0]`, which a reshape may be given."""
    symbol = getattr(node.layer, "symbol", "")
    if not symbol or not getattr(node.tensor, "dtype", tf.float32).is_integer:
        return False
    return symbol.endswith("shape") or all(_is_size(parent) for parent in node.inputs)


class _Walk:
    """One walk over a graph: the symbolic tensor of the core model for each of its nodes.

    Args:
      graph: the user's.
      inputs: the tensors that its inputs become.
      core: where the core model's layers come from.
    """

    def __init__(self, graph: Graph, inputs: "dict[Node, object]", core: CoreLayers):
        self.graph = graph
        self.core = core
        self.values = inputs
        self._names: dict[keras.layers.Layer, str] = {}
        self._plain: dict[keras.layers.Layer, keras.layers.Layer] = {}
        self._bare: dict[keras.layers.Layer, keras.layers.Layer] = {}

    def visit(self, node: Node) -> Finding:
        """Rewrites a call, or notes why it cannot be."""
        if _is_size(node):
            self.values[node] = node.tensor
            return Finding(node.name, f"tf.{node.layer.symbol}", ())
        name = self._names.setdefault(node.layer, node.name)
        kind = f"tf.{node.layer.symbol}" if hasattr(node.layer, "symbol") else type(node.layer).__name__
        before = len(self.core.called)
        try:
            if node.layer.dtype == "float64":
                raise Refused("computes in float64; build it with dtype='float32'")
            result = self._result(node, Call(node, name, self.core))
            problem = ""
        except Refused as refused:
            result, problem = None, str(refused)
        except (TypeError, ValueError) as error:  # Keras', of a call that the table does not know
            result, problem = None, " ".join(str(error).split())
        made = self.core.called[before:]
        problem = problem or self._problem(made)
        if problem or result is None:
            result = keras.Input(node.shape, dtype=getattr(node.tensor, "dtype", None))
        self.values[node] = result
        return Finding(node.name, kind, tuple(type(layer).__name__ for layer, _ in made), problem)

    def _result(self, node: Node, call: Call):
        if class_of(node.layer) is not type(node.layer):
            if node.layer not in self._plain:
                self._plain[node.layer] = of_keras_class(node.layer, [parent.shape for parent in node.inputs])
            node = dataclasses.replace(node, layer=self._plain[node.layer], tensor=None)
            call = dataclasses.replace(call, node=node)
        if has_own_activation(node.layer):
            return self._activated(node, call.name)
        if any(isinstance(value, tf.Variable) for value in tf.nest.flatten((node.args, dict(node.kwargs)))):
            raise Refused(
                "reads a variable, which would be a number from here on; use a layer that has it as its weight"
            )
        rewrite = rewrite_of(node)
        if rewrite is None:
            inputs = [self.values[parent] for parent in node.inputs]
            problem = unknown_class(node.layer) or problem_of(node)
            if problem:
                raise Refused(problem)
            return call.kept(inputs[0] if len(inputs) == 1 else inputs)
        args, kwargs = tf.nest.map_structure(
            lambda value: self.values[value] if isinstance(value, Node) else value, (node.args, dict(node.kwargs))
        )
        return rewrite(call, *args, **{key: value for key, value in kwargs.items() if key not in ("name", "training")})

    def _activated(self, node: Node, name: str):
        """A layer whose activation is a function of the user's: it without one, then what the function calls."""
        function = node.layer.activation
        if type(node.layer) is keras.layers.Activation:
            result = self.values[node.inputs[0]]
        else:
            if node.layer not in self._bare:
                self._bare[node.layer] = without_activation(node.layer, node.inputs[0].shape)
            bare = dataclasses.replace(node, layer=self._bare[node.layer], tensor=None)
            result = self._result(bare, Call(bare, name, self.core))
        model = followed(function, result)
        if model is None:
            raise Refused(
                f"its activation is none of TensorFlow operators that Keras can follow: {source_line(function)}"
            )
        graph = read_graph(model, f"{name}/")
        self.values[graph.inputs[0]] = result
        for inner in graph.nodes[1:]:
            finding = self.visit(inner)
            if finding.problem:
                raise Refused(f"its activation calls {finding.layer}: {finding.problem} ({source_line(function)})")
        return self.values[graph.outputs[0]]

    def _problem(self, made) -> str:
        """What is wrong with the core layers of a call."""
        for layer, inputs in made:
            parents = tuple(Node(call_of(x).layer.name, call_of(x).layer, (), tuple(x.shape[1:])) for x in inputs)
            problem = problem_of(Node(layer.name, layer, parents, ()))
            if problem:
                return problem
        return ""
