"""From a quantized Keras model to a plan: fold, give every tensor its integers, collect every problem.

The walk keeps, for each Keras tensor, either a stored `Tensor` of the plan or a `Pending` result that still waits for
its batch norm, its ReLU or the quantizer that says how it is stored.
"""

import dataclasses
from collections.abc import Callable

from satkeras._compat import keras, output_variables
from satkeras.models.graph import Graph, Node, read_graph
from satkeras.models.insertion import has_quantizer, quantizes_tensor
from satkeras.models.layers import Kind, kind_of
from satkeras.quantizers import Quantizer
from satkeras.quantizers.int8 import is_narrow_symmetric
from satkeras.quantizers.quant_params import QuantParams
from tflite_export.errors import ExportError
from tflite_export.lowering.closing import close_on, requantized
from tflite_export.lowering.grids import activation_params, in_units_of_its_clip, require_true_scale, stored_tensor
from tflite_export.lowering.padding import explicit_padding, fold_padding
from tflite_export.lowering.pending import Pending, Problem
from tflite_export.lowering.rules import RULES
from tflite_export.lowering.staircases import partial_sum, threshold_operators
from tflite_export.operators import Add, Reshape
from tflite_export.plan import Operator, Plan, Tensor, new_name

_NO_QUANTIZER = (
    "no quantizer: put every layer into the model before quantize_model, and give that activation_bits, not None"
)


def make_plan(model: keras.Model) -> Plan:
    """The plan of a trained quantized model.

    Raises:
      ExportError: naming every layer that cannot be lowered exactly, and why.
    """
    graph = read_graph(model)
    dynamic = [(x.name, f"its shape is {(None, *x.shape)}") for x in graph.inputs if None in x.shape]
    if dynamic:
        raise ExportError(
            "A file needs inputs of fixed size. Build the float model anew with all sizes in its tf_keras.Input, "
            "quantize it as before and give it this model's weights with set_weights",
            dynamic,
        )
    plan = Lowering(graph, names_of(model.input, model.input_names), names_of(model.output, model.output_names)).plan()
    return explicit_padding(fold_padding(plan))


def names_of(structure, names) -> tuple[str, ...]:
    """The Keras names of a model's inputs or outputs: the keys of a dict, or else the layers' names; none twice."""
    if isinstance(structure, dict):
        names = [str(key) for key in sorted(structure)]
    names = [str(name) for name in names]
    return tuple(name if name not in names[:i] else f"{name}_{names[:i].count(name)}" for i, name in enumerate(names))


class Lowering:
    """One walk over a quantized model's graph."""

    def __init__(self, graph: Graph, input_names: tuple[str, ...], output_names: tuple[str, ...]):
        self.graph = graph
        self.input_names = input_names
        self.output_names = output_names
        self.values: dict[Node, Tensor | Pending | None] = {}
        self.operators: list[Operator] = []
        self.problems: list[tuple[str, str]] = []
        self._tensor_names: set[str] = set()
        self._kernel_names: set[str] = set()

    def plan(self) -> Plan:
        for node in self.graph.nodes:
            self.values[node] = self._guarded(node, self._value)
        outputs = [self._guarded(node, self._output_tensor) for node in self.graph.outputs]
        inputs = [self._guarded(node, self._input_tensor) for node in self.graph.inputs]
        if self.problems:
            raise ExportError("The model cannot be exported exactly", dict(self.problems).items())
        outputs = self._distinct(outputs, inputs)
        return Plan(tuple(inputs), tuple(self.operators), tuple(outputs), self.input_names, self.output_names)

    def _guarded(self, node: Node, rule: Callable):
        try:
            return rule(node)
        except (Problem, ValueError) as problem:
            self.problems.append((node.name, str(problem)))
        except _Upstream:
            pass
        return None

    def _value(self, node: Node) -> "Tensor | Pending | None":
        if quantizes_tensor(node.layer):
            return self._quantized(node)
        inner = node.layer.layer if has_quantizer(node.layer) else node.layer
        rule = RULES.get(type(inner))
        if rule is None:
            raise Problem(
                f"no operator for {type(inner).__name__} here: put it into the model before quantize_model, or compute "
                "it behind the file"
            )
        return rule(self, node, inner)

    # What a node reads.

    def value(self, node: Node) -> "Tensor | Pending":
        """What is known of a node's result."""
        value = self.values[node]
        if value is None and node.inputs:
            raise _Upstream
        if value is None:
            raise Problem(f"the model's input {node.name} has {_NO_QUANTIZER}")
        return value

    def stored(self, node: Node) -> Tensor:
        """A node's result, which must be on a grid."""
        if not self._is_meant_to_be_stored(node):
            raise Problem(f"{node.name} has {_NO_QUANTIZER}")
        value = self.value(node)
        if not isinstance(value, Tensor):
            raise Problem(f"{node.name} has {_NO_QUANTIZER}")
        return value

    def _is_meant_to_be_stored(self, node: Node) -> bool:
        """Whether a quantizer comes before any layer that needs one; holds where the value itself is not known."""
        while kind_of(node) in (Kind.PASS, Kind.ON_GRID, Kind.RELU):
            (node,) = node.inputs
        return quantizes_tensor(node.layer) or kind_of(node) in (Kind.FIXED, Kind.INPUT)

    def _input_tensor(self, node: Node) -> Tensor:
        """The stored codes of an InputLayer."""
        (consumer,) = self.graph.consumers(node)[:1] or [node]
        return self.stored(consumer)

    def _output_tensor(self, node: Node) -> Tensor:
        """What the model returns, in the units that a caller of the file takes it to have."""
        x = self.stored(node)
        require_true_scale(x, "the file's caller")
        return x

    # What it writes.

    def append(self, operator: Operator) -> Tensor:
        """Adds an operator to the plan."""
        self.operators.append(operator)
        return operator.output

    def named(self, name: str) -> str:
        """`name`, numbered if a tensor has it already."""
        return new_name(name, self._tensor_names)

    def kernel_named(self, name: str) -> str:
        """The same for a layer whose kernel the file holds, once for each call."""
        return new_name(name, self._kernel_names)

    def _distinct(self, outputs: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
        """The outputs, a copy for each that is an input or another output, too."""
        found: list[Tensor] = []
        for tensor in outputs:
            if tensor in found or tensor in inputs:
                copy = dataclasses.replace(tensor, name=self.named(f"{tensor.name}/copy"), layer=None)
                tensor = self.append(Reshape((tensor,), copy))
            found.append(tensor)
        return found

    def _quantized(self, node: Node) -> Tensor:
        quantizer, variables = output_variables(node.layer)
        params = activation_params(quantizer, variables)
        (source,) = node.inputs
        if not source.inputs:
            name = self.input_names[self.graph.inputs.index(source)]
            return dataclasses.replace(stored_tensor(self.named(name), node, params), offset=quantizer.shift)
        if quantizer.reads_8_bits:
            output = stored_tensor(self.named(float_name(node)), node, params)
            return self._staircase(self.stored(source), output, quantizer, variables)
        pending = self.value(source)
        name = float_name(node) if isinstance(pending, Tensor) else float_name(source)
        if isinstance(pending, Tensor):
            pending = requantized(pending)
        return self._close(pending.then(node.name), node, name, params)

    def _close(self, pending: Pending, node: Node, name: str, params: QuantParams) -> Tensor:
        """Emits the operators of a pending result, now that it is known how it is stored."""
        narrow = is_narrow_symmetric((params.qmin, params.qmax), params.zero_point)
        if narrow and pending.rescales and not pending.relu and not self._is_returned(node):
            output = in_units_of_its_clip(stored_tensor(self.named(name), node, params), params)
            return pending.close(self, pending, output, "relu_n1_to_1")
        return close_on(self, pending, stored_tensor(self.named(name), node, params))

    def _is_returned(self, node: Node) -> bool:
        """Whether the model returns a node's values, moved at most."""
        if node in self.graph.outputs:
            return True
        moved = [reader for reader in self.graph.consumers(node) if kind_of(reader) is Kind.PASS]
        return any(self._is_returned(reader) for reader in moved)

    def _staircase(self, x: Tensor, output: Tensor, quantizer: Quantizer, variables) -> Tensor:
        """Emits an operator for each threshold, and their sum, all of them on the scale of the input."""
        output = dataclasses.replace(output, scale=x.scale)
        operators = threshold_operators(x, output, quantizer, variables)
        covered = {"layers": (output.layer,), "sources": (x,)}
        if len(operators) == 1:
            return self.append(dataclasses.replace(operators[0], **covered))
        total, *others = [self.append(operator) for operator in operators]
        for count, one in enumerate(others, start=2):
            result = partial_sum(output, count)
            total = self.append(Add((total, one), result, "none", **(covered if result is output else {})))
        return total


def float_name(node: Node) -> str:
    """The name that a node's layer has in the float model."""
    if not has_quantizer(node.layer):
        return node.name
    return node.name.replace(node.layer.name, node.layer.layer.name, 1)


class _Upstream(Exception):
    """An earlier layer has failed already, and says so itself."""
