"""From a quantized Keras model to a plan: fold, assign every tensor its integers, collect every problem.

The walk keeps, for each Keras tensor, either a stored `Tensor` of the plan or a `_Pending` result that still waits for
its batch norm, its ReLU or the quantizer that says how it is stored.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from satkeras._compat import keras, output_variables, weight_variables
from satkeras.graph import Graph, Node, read_graph
from satkeras.qparams import QuantParams
from satkeras.rewrite import has_quantizer, quantizes_tensor
from tflite_export.errors import ExportError
from tflite_export.plan import (
    Activation,
    Add,
    Convolution,
    DepthwiseConvolution,
    FullyConnected,
    LinearOperator,
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

# What XNNPACK takes: a larger or smaller multiplier falls back to kernels that round twice.
LARGEST_MULTIPLIER = 2.0**8
SMALLEST_MULTIPLIER = 2.0**-32
SMALLEST_ADD_RATIO = 2.0**-10
LARGEST_BIAS = 2.0**30

_layers = keras.layers


@dataclasses.dataclass(frozen=True, eq=False)
class _Pending:
    """A result in real numbers: `step * (weights applied to the input's integers) * input step + bias`.

    Attributes:
      kind: the operator that will compute it.
      inputs: the stored tensors it reads.
      layers: names of the Keras layers it covers so far.
      weights: integers on the training grid, channels last; None for operators without weights.
      largest_weight: the largest integer of that grid.
      step: float64 (channels,), the real size of one step of the weights, negative where batch norm flips the sign.
      bias: float64 (channels,).
      window: where the kernel lies.
      relu: whether a ReLU follows; `ceiling` is its maximum.
    """

    kind: type[Operator]
    inputs: tuple[Tensor, ...]
    layers: tuple[str, ...]
    weights: np.ndarray | None = None
    largest_weight: int = 1
    step: np.ndarray | None = None
    bias: np.ndarray | None = None
    window: Window = Window()
    relu: bool = False
    ceiling: float = np.inf


def make_plan(model: keras.Model) -> Plan:
    """The plan of a trained quantized model.

    Raises:
      ExportError: naming every layer that cannot be lowered exactly, and why.
    """
    return fold_padding(_Lowering(read_graph(model)).plan())


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
                padded = dataclasses.replace(reader, inputs=(source,), window=window)
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


class _Problem(Exception):
    """Why one layer cannot be lowered."""


class _Lowering:
    """One walk over a quantized model's graph."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.values: dict[Node, Tensor | _Pending | None] = {}
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
        except (_Problem, ValueError) as problem:
            self.problems.append((node.name, str(problem)))
        except _Upstream:
            pass
        return None

    def _value(self, node: Node) -> "Tensor | _Pending | None":
        if quantizes_tensor(node.layer):
            return self._quantized(node)
        inner = node.layer.layer if has_quantizer(node.layer) else node.layer
        rule = _RULES.get(type(inner))
        if rule is None:
            raise _Problem(f"no rule for {type(inner).__name__}")
        return rule(self, node, inner)

    # What a node reads.

    def _taken(self, node: Node) -> "Tensor | _Pending":
        value = self.values[node]
        if value is None and node.inputs:
            raise _Upstream
        if value is None:
            raise _Problem("the model's input has no quantizer: quantize_model with activation_bits, not None")
        return value

    def _stored(self, node: Node) -> Tensor:
        value = self._taken(node)
        if not isinstance(value, Tensor):
            raise _Problem("its result has no quantizer: quantize_model with activation_bits, not None")
        return value

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
        output, clip = _activation_tensor(node, params)
        (source,) = node.inputs
        if not source.inputs:
            return output
        pending = self._taken(source)
        if isinstance(pending, Tensor):
            pending = _identity(pending)
        return self._close(dataclasses.replace(pending, layers=(*pending.layers, node.name)), output, clip)

    def _close(self, pending: _Pending, output: Tensor, clip: Activation) -> Tensor:
        """Emits the operator of a pending result, now that it is known how it is stored."""
        if pending.ceiling < (output.highest - output.zero_point) * output.step * (1 - 1e-6):
            raise _Problem(f"its range exceeds the maximum {pending.ceiling:g} of the ReLU before it")
        if clip == "none" and pending.relu:
            clip = "relu"
            output = dataclasses.replace(output, lowest=output.zero_point)
        if pending.kind is Add:
            return self._add_operator(_add(pending, output, clip))
        if pending.kind is Mean:
            return self._add_operator(_mean(pending, output, clip))
        return self._linear(pending, output, clip)

    def _linear(self, pending: _Pending, output: Tensor, clip: Activation) -> Tensor:
        (x,) = pending.inputs
        if pending.kind is FullyConnected and len(np.unique(pending.step)) > 1:
            # A scale for each output, as batch norm leaves behind, is a convolution's.
            weights = pending.weights.reshape(1, 1, *pending.weights.shape)
            pending = dataclasses.replace(pending, kind=Convolution, weights=weights)
        if pending.kind is FullyConnected or len(x.shape) == 3:
            return self._add_operator(_linear(pending, x, output, clip))
        image = dataclasses.replace(x, name=f"{output.name}/image", shape=(1, 1, *x.shape), layer=None)
        self._add_operator(Reshape((x,), image))
        result = dataclasses.replace(output, name=f"{output.name}/result", shape=(1, 1, *output.shape), layer=None)
        self._add_operator(_linear(pending, image, result, clip))
        return self._add_operator(Reshape((result,), output, layers=pending.layers))


class _Upstream(Exception):
    """An earlier layer has failed already, and says so itself."""


def _activation_tensor(node: Node, params: QuantParams) -> tuple[Tensor, Activation]:
    """Where a quantizer's grid lies in int8, and what must be fused for int8 to clip where the quantizer does.

    256 levels fill int8. Fewer unsigned levels lie at its top, so that saturation is the upper clip and ReLU the lower
    one. Fewer signed levels lie around zero in units of the clip value, so that RELU_N1_TO_1 clips at both ends.
    """
    step = float(params.scale)
    levels = params.qmax - params.qmin + 1
    if levels == 256:
        zero_point, lowest, highest, scale, clip = params.zero_point - params.qmin - 128, -128, 127, params.scale, "none"
    elif params.qmin == params.zero_point:
        zero_point = 127 - (params.qmax - params.qmin)
        lowest, highest, scale, clip = zero_point, 127, params.scale, "relu"
    else:
        zero_point, lowest, highest, clip = 0, params.qmin, params.qmax, "relu_n1_to_1"
        scale = np.float32(1 / params.qmax)
    return Tensor(node.name, node.shape, np.float32(scale), zero_point, step, lowest, highest, node.name), clip


def _identity(x: Tensor) -> _Pending:
    """A stored tensor as the result of a 1x1 depthwise convolution: the exact way to requantize or rescale it."""
    channels = x.shape[-1]
    return _Pending(
        DepthwiseConvolution,
        (x,),
        (),
        weights=np.ones((1, 1, channels), np.int64),
        step=np.ones(channels),
        bias=np.zeros(channels),
    )


def _add(pending: _Pending, output: Tensor, clip: Activation) -> Add:
    if clip == "relu_n1_to_1":
        raise _Problem("ADD cannot clip a signed grid below 8 bits at both ends")
    for x in pending.inputs:
        if x.scale != np.float32(x.step):
            raise _Problem(f"ADD cannot read {x.name}, which is stored in units of its clip value")
        if not SMALLEST_ADD_RATIO <= x.scale / output.scale < LARGEST_MULTIPLIER:
            raise _Problem(f"the step of {x.name} is {x.scale / output.scale:g} times its own, beyond 2^-10 .. 2^8")
    return Add(pending.inputs, output, layers=pending.layers, activation=clip)


def _mean(pending: _Pending, output: Tensor, clip: Activation) -> Mean:
    (x,) = pending.inputs
    if clip == "relu_n1_to_1" or (clip == "relu" and x.lowest < x.zero_point):
        raise _Problem("MEAN cannot clip")
    if x.scale != np.float32(x.step):
        raise _Problem(f"MEAN cannot read {x.name}, which is stored in units of its clip value")
    return Mean(pending.inputs, output, layers=pending.layers)


def _linear(pending: _Pending, x: Tensor, output: Tensor, activation: Activation) -> LinearOperator:
    """The integers of a weighted sum, weights spread over the whole of int8.

    Multiplying a low-bit grid by 127 // largest_weight keeps it exact and makes the bias's grid that much finer.
    """
    spread = 127 // pending.largest_weight
    weights = pending.weights * spread * np.where(pending.step < 0, -1, 1)
    unit = np.abs(pending.step) / spread
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        steps = pending.bias / (x.step * unit)
    multiplier = x.step * unit / output.step
    lost = (unit == 0) | (np.abs(steps) > LARGEST_BIAS) | (multiplier < SMALLEST_MULTIPLIER)
    if lost.any():
        weights, unit, steps = _constant_channels(pending, x, output, lost, weights, unit, steps)
        multiplier = x.step * unit / output.step
    if multiplier.max() >= LARGEST_MULTIPLIER:
        raise _Problem(f"a step of its sum is {multiplier.max():g} output steps, beyond 2^8: its output range is tiny")
    bias = np.rint(steps)
    fields = {"window": pending.window} if pending.kind is not FullyConnected else {}
    return pending.kind(
        (x,),
        output,
        layers=pending.layers,
        weights=weights.astype(np.int8),
        weight_scale=(unit * (x.step / float(x.scale)) * (float(output.scale) / output.step)).astype(np.float32),
        bias=bias.astype(np.int32),
        bias_error=(bias - steps) * x.step * unit,
        activation=activation,
        **fields,
    )


def _constant_channels(pending, x, output, lost, weights, unit, steps):
    """Channels whose weights are too small for the int32 bias (a batch norm's gamma near 0), if they are constant.

    Such a channel is stored exactly as zero weights and a bias of whole output steps, provided that its weighted sum
    cannot move its result off the level where the bias puts it.
    """
    reach = max(abs(x.lowest - x.zero_point), abs(x.highest - x.zero_point))
    swing = np.abs(pending.weights).reshape(-1, len(unit)).sum(0) * reach * x.step * np.abs(pending.step) / output.step
    level = pending.bias / output.step
    ends = output.lowest - output.zero_point, output.highest - output.zero_point
    low, high = (np.rint(np.clip(level + side, *ends)) for side in (-swing, swing))
    moving = lost & (low != high)
    if moving.any() or pending.kind is FullyConnected:
        raise _Problem(
            f"the weights of channels {np.flatnonzero(lost)[:8].tolist()} are so small beside their bias (is batch "
            "norm's gamma near 0?) that int32 cannot hold the bias in steps of their sum"
        )
    finest = 2.0**-10
    weights = np.where(lost, 0, weights)
    unit = np.where(lost, finest * output.step / x.step, unit)
    return weights, unit, np.where(lost, low / finest, steps)


# The rules: what each Keras layer does to the value it reads.


def _linear_layer(walk: _Lowering, node: Node, layer) -> _Pending:
    x = walk._stored(node.inputs[0])
    if not has_quantizer(node.layer):
        raise _Problem("its weights have no quantizer")
    latent, quantizer, variables = weight_variables(node.layer)
    if not np.isfinite(latent.numpy()).all():
        raise _Problem("its weights hold NaN or infinity")
    params = quantizer.quant_params({name: value.numpy() for name, value in variables.items()}, latent.numpy())
    weights = params.integers_of(quantizer(latent, False, variables).numpy()).astype(np.int64)
    kind, window = FullyConnected, Window()
    if not isinstance(layer, _layers.Dense):
        kind = DepthwiseConvolution if isinstance(layer, _layers.DepthwiseConv2D) else Convolution
        window = Window(layer.strides, layer.padding.upper(), layer.dilation_rate)
    if kind is DepthwiseConvolution:
        weights = weights[..., 0]
    channels = weights.shape[-1]
    bias = layer.bias.numpy().astype(np.float64) if layer.use_bias else np.zeros(channels)
    if not np.isfinite(bias).all():
        raise _Problem("its bias holds NaN or infinity")
    step = np.broadcast_to(params.scale.astype(np.float64), channels)
    return _Pending(kind, (x,), (node.name,), weights, params.qmax, step, bias, window)


def _batch_norm(walk: _Lowering, node: Node, layer) -> _Pending:
    before = walk._taken(node.inputs[0])
    if isinstance(before, Tensor):
        before = _identity(before)
    if before.step is None or before.relu:
        raise _Problem(f"a batch norm cannot fold into {before.layers}: quantize the tensor between them")
    mean, variance = layer.moving_mean.numpy().astype(np.float64), layer.moving_variance.numpy().astype(np.float64)
    gamma = layer.gamma.numpy().astype(np.float64) if layer.scale else 1.0
    beta = layer.beta.numpy().astype(np.float64) if layer.center else 0.0
    factor = gamma / np.sqrt(variance + layer.epsilon)
    bias = (before.bias - mean) * factor + beta
    if not (np.isfinite(factor).all() and np.isfinite(bias).all()):
        raise _Problem("its weights hold NaN or infinity")
    return dataclasses.replace(before, layers=(*before.layers, node.name), step=before.step * factor, bias=bias)


def _relu(walk: _Lowering, node: Node, layer) -> _Pending:
    before = walk._taken(node.inputs[0])
    if isinstance(before, Tensor):
        before = _identity(before)
    ceiling = np.inf if layer.max_value is None else float(layer.max_value)
    return dataclasses.replace(before, layers=(*before.layers, node.name), relu=True, ceiling=ceiling)


def _add_layer(walk: _Lowering, node: Node, layer) -> _Pending:
    return _Pending(Add, tuple(walk._stored(parent) for parent in node.inputs), (node.name,))


def _global_average(walk: _Lowering, node: Node, layer) -> _Pending:
    return _Pending(Mean, (walk._stored(node.inputs[0]),), (node.name,))


def _average_pool(walk: _Lowering, node: Node, layer) -> _Pending:
    """A depthwise convolution with equal weights: unlike AVERAGE_POOL_2D it rounds once, and to a scale of its own."""
    x = walk._stored(node.inputs[0])
    height, width = layer.pool_size
    ones = dataclasses.replace(_identity(x), layers=(node.name,), window=Window(layer.strides))
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
