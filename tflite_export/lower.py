"""From a quantized Keras model to a plan: fold, assign every tensor its integers, collect every problem.

The walk keeps, for each Keras tensor, either a stored `Tensor` of the plan or a `Pending` result that still waits for
its batch norm, its ReLU or the quantizer that says how it is stored.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from satkeras._compat import keras, output_variables
from satkeras.graph import Graph, Node, read_graph
from satkeras.integers import integer_weight
from satkeras.layers import Kind, kind_of
from satkeras.quantizers import Quantizer
from satkeras.rewrite import has_quantizer, quantizes_tensor
from tflite_export.errors import ExportError
from tflite_export.plan import (
    Activation,
    Add,
    Convolution,
    DepthwiseConvolution,
    FullyConnected,
    MaxPool,
    Mean,
    Operator,
    Pad,
    Plan,
    Reshape,
    Softmax,
    Tensor,
    Window,
)
from tflite_export.requantize import (
    Pending,
    Problem,
    activation_tensor,
    add_operator,
    identity,
    linear_operator,
    mean_operator,
)
from tflite_export.steps import partial_sum, step_operators

_layers = keras.layers
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
    return fold_padding(_Lowering(graph).plan())


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


class _Lowering:
    """One walk over a quantized model's graph."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.values: dict[Node, Tensor | Pending | None] = {}
        self.operators: list[Operator] = []
        self.problems: list[tuple[str, str]] = []

    def plan(self) -> Plan:
        for node in self.graph.nodes:
            self.values[node] = self._guarded(node, self._value)
        outputs = [self._guarded(node, self._stored) for node in self.graph.outputs]
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
        rule = _RULES.get(type(inner))
        if rule is None:
            raise Problem(f"no rule for {type(inner).__name__}")
        return rule(self, node, inner)

    # What a node reads.

    def _taken(self, node: Node) -> "Tensor | Pending":
        value = self.values[node]
        if value is None and node.inputs:
            raise _Upstream
        if value is None:
            raise Problem(f"the model's input {node.name} has {_NO_QUANTIZER}")
        return value

    def _stored(self, node: Node) -> Tensor:
        if not self._is_meant_to_be_stored(node):
            raise Problem(f"{node.name} has {_NO_QUANTIZER}")
        value = self._taken(node)
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
        return self._stored(consumer)

    # What it writes.

    def _add_operator(self, operator: Operator) -> Tensor:
        self.operators.append(operator)
        return operator.output

    def _quantized(self, node: Node) -> Tensor:
        quantizer, variables = output_variables(node.layer)
        params = quantizer.quant_params({name: value.numpy() for name, value in variables.items()})
        output, clip = activation_tensor(node, params)
        (source,) = node.inputs
        if not source.inputs:
            return output
        pending = self._taken(source)
        if quantizer.reads_8_bits:
            return self._steps(self._stored(source), output, quantizer, variables)
        if isinstance(pending, Tensor):
            pending = identity(pending)
        return self._close(dataclasses.replace(pending, layers=(*pending.layers, node.name)), output, clip)

    def _close(self, pending: Pending, output: Tensor, clip: Activation) -> Tensor:
        """Emits the operator of a pending result, now that it is known how it is stored."""
        if pending.ceiling < (output.highest - output.zero_point) * output.step * (1 - 1e-6):
            raise Problem(f"its range exceeds the maximum {pending.ceiling:g} of the ReLU before it")
        if clip == "none" and pending.relu:
            clip = "relu"
            output = dataclasses.replace(output, lowest=output.zero_point)
        if pending.kind is Add:
            return self._add_operator(add_operator(pending, output, clip))
        if pending.kind is Mean:
            return self._add_operator(mean_operator(pending, output, clip))
        return self._linear(pending, output, clip)

    def _steps(self, x: Tensor, output: Tensor, quantizer: Quantizer, variables) -> Tensor:
        """Emits a step for each level, and their sum, all of them on images."""
        x, result = self._image(x, f"{output.name}/image"), output
        if len(output.shape) == 1:
            result = dataclasses.replace(output, name=f"{output.name}/result", shape=x.shape, layer=None)
        steps = [self._add_operator(one) for one in step_operators(x, result, quantizer, variables)]
        total = steps[0]
        for count, one in enumerate(steps[1:], start=2):
            total = self._add_operator(Add((total, one), partial_sum(result, count), activation="none"))
        return result if result is output else self._add_operator(Reshape((result,), output))

    def _linear(self, pending: Pending, output: Tensor, clip: Activation) -> Tensor:
        (x,) = pending.inputs
        if pending.kind is FullyConnected and len(np.unique(pending.step)) > 1:
            # A scale for each output, as batch norm leaves behind, is a convolution's.
            weights = pending.weights.reshape(1, 1, *pending.weights.shape)
            pending = dataclasses.replace(pending, kind=Convolution, weights=weights)
        if pending.kind is FullyConnected:
            return self._add_operator(linear_operator(pending, x, output, clip))
        result = output
        x = self._image(x, f"{output.name}/image")
        if len(output.shape) == 1:
            result = dataclasses.replace(output, name=f"{output.name}/result", shape=(1, 1, *output.shape), layer=None)
        self._add_operator(linear_operator(pending, x, result, clip))
        return result if result is output else self._add_operator(Reshape((result,), output))

    def _image(self, x: Tensor, name: str) -> Tensor:
        """`x`, a vector reshaped to an image of one pixel."""
        if len(x.shape) != 1:
            return x
        return self._add_operator(Reshape((x,), dataclasses.replace(x, name=name, shape=(1, 1, *x.shape), layer=None)))


class _Upstream(Exception):
    """An earlier layer has failed already, and says so itself."""


# The rules: what each Keras layer does to the value it reads.


def _linear_layer(walk: _Lowering, node: Node, layer) -> Pending:
    if not has_quantizer(node.layer):
        raise Problem("its weights have no quantizer")
    kernel = integer_weight(node.layer)
    weights, params = kernel.integers.astype(np.int64), kernel.params
    if layer.use_bias and not np.isfinite(layer.bias.numpy()).all():
        raise Problem("its bias holds NaN or infinity")
    x = walk._stored(node.inputs[0])
    kind, window = FullyConnected, Window()
    if not isinstance(layer, _layers.Dense):
        kind = DepthwiseConvolution if isinstance(layer, _layers.DepthwiseConv2D) else Convolution
        window = Window(layer.strides, layer.padding.upper(), layer.dilation_rate)
    if kind is DepthwiseConvolution:
        weights = weights[..., 0]
    channels = weights.shape[-1]
    bias = layer.bias.numpy().astype(np.float64) if layer.use_bias else np.zeros(channels)
    step = np.broadcast_to(params.scale.astype(np.float64), channels)
    return Pending(kind, (x,), (node.name,), weights, params.qmax, step, bias, window)


def _batch_norm(walk: _Lowering, node: Node, layer) -> Pending:
    mean, variance = layer.moving_mean.numpy().astype(np.float64), layer.moving_variance.numpy().astype(np.float64)
    gamma = layer.gamma.numpy().astype(np.float64) if layer.scale else 1.0
    beta = layer.beta.numpy().astype(np.float64) if layer.center else 0.0
    factor = gamma / np.sqrt(variance + layer.epsilon)
    if not np.isfinite([factor, mean * factor + beta]).all():
        raise Problem("its weights hold NaN or infinity")
    before = walk._taken(node.inputs[0])
    if isinstance(before, Tensor):
        before = identity(before)
    if before.step is None or before.relu:
        raise Problem(f"a batch norm cannot fold into {before.layers}: quantize the tensor between them")
    bias = (before.bias - mean) * factor + beta
    return dataclasses.replace(before, layers=(*before.layers, node.name), step=before.step * factor, bias=bias)


def _relu(walk: _Lowering, node: Node, layer) -> Pending:
    before = walk._taken(node.inputs[0])
    if isinstance(before, Tensor):
        before = identity(before)
    ceiling = np.inf if layer.max_value is None else float(layer.max_value)
    return dataclasses.replace(before, layers=(*before.layers, node.name), relu=True, ceiling=ceiling)


def _add_layer(walk: _Lowering, node: Node, layer) -> Pending:
    return Pending(Add, tuple(walk._stored(parent) for parent in node.inputs), (node.name,))


def _global_average(walk: _Lowering, node: Node, layer) -> Pending:
    x = walk._stored(node.inputs[0])
    if x.shape[:2] == (1, 1):
        # The converter drops a MEAN of single pixels, and with it the change of scale.
        return dataclasses.replace(identity(x), layers=(node.name,))
    return Pending(Mean, (x,), (node.name,))


def _average_pool(walk: _Lowering, node: Node, layer) -> Pending:
    """A depthwise convolution with equal weights: unlike AVERAGE_POOL_2D it rounds once, and to a scale of its own."""
    x = walk._stored(node.inputs[0])
    height, width = layer.pool_size
    ones = dataclasses.replace(identity(x), layers=(node.name,), window=Window(layer.strides))
    channels = x.shape[-1]
    weights, step = np.ones((height, width, channels), np.int64), np.full(channels, 1 / (height * width))
    return dataclasses.replace(ones, weights=weights, step=step)


def _moved(walk: _Lowering, node: Node) -> tuple[Tensor, Tensor]:
    """The input and output of a layer that keeps its input's scale."""
    x = walk._stored(node.inputs[0])
    return x, dataclasses.replace(x, name=node.name, shape=node.shape, layer=node.name)


def _max_pool(walk: _Lowering, node: Node, layer) -> Tensor:
    x, output = _moved(walk, node)
    window = Window(layer.strides, layer.padding.upper())
    return walk._add_operator(MaxPool((x,), output, layers=(node.name,), pool=layer.pool_size, window=window))


def _global_max(walk: _Lowering, node: Node, layer) -> Tensor:
    x, output = _moved(walk, node)
    pooled = dataclasses.replace(output, name=f"{node.name}/pooled", shape=(1, 1, x.shape[-1]), layer=None)
    walk._add_operator(MaxPool((x,), pooled, pool=x.shape[:2], window=Window(x.shape[:2])))
    return walk._add_operator(Reshape((pooled,), output, layers=(node.name,)))


def _pad(walk: _Lowering, node: Node, layer) -> Tensor:
    x, output = _moved(walk, node)
    return walk._add_operator(Pad((x,), output, layers=(node.name,), paddings=layer.padding))


def _reshape(walk: _Lowering, node: Node, layer) -> Tensor:
    x, output = _moved(walk, node)
    if x.shape == output.shape:
        return x
    return walk._add_operator(Reshape((x,), output, layers=(node.name,)))


def _same(walk: _Lowering, node: Node, layer):
    return walk._taken(node.inputs[0])


def _softmax(walk: _Lowering, node: Node, layer) -> Tensor:
    x = walk._stored(node.inputs[0])
    output = Tensor(node.name, node.shape, np.float32(1 / 256), -128, 1 / 256, layer=node.name)
    return walk._add_operator(Softmax((x,), output, layers=(node.name,)))


_RULES: dict[type, Callable] = {
    _layers.InputLayer: lambda walk, node, layer: None,
    _layers.Conv2D: _linear_layer,
    _layers.DepthwiseConv2D: _linear_layer,
    _layers.Dense: _linear_layer,
    _layers.BatchNormalization: _batch_norm,
    _layers.ReLU: _relu,
    _layers.Add: _add_layer,
    _layers.GlobalAveragePooling2D: _global_average,
    _layers.AveragePooling2D: _average_pool,
    _layers.MaxPooling2D: _max_pool,
    _layers.GlobalMaxPooling2D: _global_max,
    _layers.ZeroPadding2D: _pad,
    _layers.Flatten: _reshape,
    _layers.Reshape: _reshape,
    _layers.Dropout: _same,
    _layers.SpatialDropout2D: _same,
    _layers.Activation: _same,
    _layers.Softmax: _softmax,
}
