"""From a quantized Keras model to a plan: fold, assign every tensor its integers, collect every problem.

The walk keeps, for each Keras tensor, either a stored `Tensor` of the plan or a `Pending` result that still waits for
its batch norm, its ReLU or the quantizer that says how it is stored.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from satkeras._compat import keras, output_variables
from satkeras.models.graph import Graph, Node, read_graph
from satkeras.models.insertion import has_quantizer, quantizes_tensor
from satkeras.models.layers import Kind, kind_of
from satkeras.quantizers import Quantizer
from tflite_export.errors import ExportError
from tflite_export.lowering.requantize import (
    Pending,
    Problem,
    activation_tensor,
    add_operator,
    linear_operator,
    mean_operator,
    multiply_operator,
    rescaled,
)
from tflite_export.lowering.rules import RULES
from tflite_export.lowering.staircases import partial_sum, step_operators
from tflite_export.plan import (
    Activation,
    Add,
    Convolution,
    DepthwiseConvolution,
    FullyConnected,
    Mean,
    MultiplyConstant,
    Operator,
    Pad,
    Plan,
    Reshape,
    Tensor,
)

_NO_QUANTIZER = "no quantizer: quantize_model with activation_bits, not None"


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
    return fold_padding(Lowering(graph).plan())


def fold_padding(plan: Plan) -> Plan:
    """Drops every PAD that its convolutions' own SAME padding can do, as TensorFlow's converter does."""
    operators = list(plan.operators)
    for pad in [op for op in operators if isinstance(op, Pad)]:
        (source,) = pad.inputs
        readers = [op for op in operators if pad.output in op.inputs]
        if pad.output not in plan.outputs and all(_pads_alike(pad, op) for op in readers):
            operators.remove(pad)
            for reader in readers:
                window = dataclasses.replace(reader.window, padding="SAME")
                layers = (*pad.layers, *reader.layers)
                padded = dataclasses.replace(reader, inputs=(source,), window=window, layers=layers)
                operators[operators.index(reader)] = padded
    return dataclasses.replace(plan, operators=tuple(operators))


def _pads_alike(pad: Pad, reader: Operator) -> bool:
    if not isinstance(reader, (Convolution, DepthwiseConvolution)) or reader.window.padding != "VALID":
        return False
    sizes = zip(pad.inputs[0].shape, reader.weights.shape, reader.window.strides, reader.window.dilations, strict=False)
    return pad.paddings == tuple(_same_padding(*size) for size in sizes)


def _same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """What TensorFlow's SAME puts before and after an axis."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


class Lowering:
    """One walk over a quantized model's graph."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.values: dict[Node, Tensor | Pending | None] = {}
        self.operators: list[Operator] = []
        self.problems: list[tuple[str, str]] = []

    def plan(self) -> Plan:
        for node in self.graph.nodes:
            self.values[node] = self._guarded(node, self._value)
        outputs = [self._guarded(node, self.stored) for node in self.graph.outputs]
        inputs = [self._guarded(node, self._input_tensor) for node in self.graph.inputs]
        if self.problems:
            raise ExportError("The model cannot be exported exactly", dict(self.problems).items())
        return Plan(tuple(inputs), tuple(self.operators), tuple(outputs))

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
            raise Problem(f"no rule for {type(inner).__name__}")
        return rule(self, node, inner)

    # What a node reads.

    def taken(self, node: Node) -> "Tensor | Pending":
        value = self.values[node]
        if value is None and node.inputs:
            raise _Upstream
        if value is None:
            raise Problem(f"the model's input {node.name} has {_NO_QUANTIZER}")
        return value

    def stored(self, node: Node) -> Tensor:
        if not self._is_meant_to_be_stored(node):
            raise Problem(f"{node.name} has {_NO_QUANTIZER}")
        value = self.taken(node)
        if not isinstance(value, Tensor):
            raise Problem(f"{node.name} has {_NO_QUANTIZER}")
        return value

    def _is_meant_to_be_stored(self, node: Node) -> bool:
        """Whether a quantizer comes before any layer that needs one; holds where the value itself is not known."""
        while kind_of(node) is Kind.PASS:
            (node,) = node.inputs
        return quantizes_tensor(node.layer) or kind_of(node) in (Kind.SOFTMAX, Kind.INPUT)

    def _input_tensor(self, node: Node) -> Tensor:
        """The stored codes of an InputLayer."""
        (consumer,) = self.graph.consumers(node)[:1] or [node]
        return self.stored(consumer)

    # What it writes.

    def append(self, operator: Operator) -> Tensor:
        self.operators.append(operator)
        return operator.output

    def _quantized(self, node: Node) -> Tensor:
        quantizer, variables = output_variables(node.layer)
        params = quantizer.quant_params({name: value.numpy() for name, value in variables.items()})
        output, clip = activation_tensor(node, params)
        (source,) = node.inputs
        if not source.inputs:
            return output
        pending = self.taken(source)
        if quantizer.reads_8_bits:
            return self._steps(self.stored(source), output, quantizer, variables)
        if isinstance(pending, Tensor):
            pending = rescaled(pending)
        return self._close(dataclasses.replace(pending, layers=(*pending.layers, node.name)), output, clip)

    def _close(self, pending: Pending, output: Tensor, clip: Activation) -> Tensor:
        """Emits the operator of a pending result, now that it is known how it is stored."""
        if pending.ceiling < (output.highest - output.zero_point) * output.step * (1 - 1e-6):
            raise Problem(f"its range exceeds the maximum {pending.ceiling:g} of the ReLU before it")
        if clip == "none" and pending.relu:
            clip = "relu"
            output = dataclasses.replace(output, lowest=output.zero_point)
        if pending.kind is Add:
            return self.append(add_operator(pending, output, clip))
        if pending.kind is Mean:
            return self.append(mean_operator(pending, output, clip))
        if pending.kind is MultiplyConstant:
            return self.append(multiply_operator(pending, output, clip))
        return self._linear(pending, output, clip)

    def _steps(self, x: Tensor, output: Tensor, quantizer: Quantizer, variables) -> Tensor:
        """Emits a step for each level, and their sum, all of them in steps of the input."""
        output = dataclasses.replace(output, scale=x.scale)
        steps = [self.append(one) for one in step_operators(x, output, quantizer, variables)]
        total = steps[0]
        for count, one in enumerate(steps[1:], start=2):
            total = self.append(Add((total, one), partial_sum(output, count), activation="none"))
        return total

    def _linear(self, pending: Pending, output: Tensor, clip: Activation) -> Tensor:
        (x,) = pending.inputs
        if pending.kind is FullyConnected and len(np.unique(pending.step)) > 1:
            # A scale for each output, as batch norm leaves behind, is a convolution's.
            weights = pending.weights.reshape(1, 1, *pending.weights.shape)
            pending = dataclasses.replace(pending, kind=Convolution, weights=weights)
        if pending.kind is FullyConnected:
            return self.append(linear_operator(pending, x, output, clip))
        result = output
        x = self._image(x, f"{output.name}/image")
        if len(output.shape) == 1:
            result = dataclasses.replace(output, name=f"{output.name}/result", shape=(1, 1, *output.shape), layer=None)
        self.append(linear_operator(pending, x, result, clip))
        return result if result is output else self.append(Reshape((result,), output))

    def _image(self, x: Tensor, name: str) -> Tensor:
        """`x`, a vector reshaped to an image of one pixel."""
        if len(x.shape) != 1:
            return x
        return self.append(Reshape((x,), dataclasses.replace(x, name=name, shape=(1, 1, *x.shape), layer=None)))


class _Upstream(Exception):
    """An earlier layer has failed already, and says so itself."""
