"""Passes over a plan that settle who pads: a PAD, or a convolution's own SAME."""

import dataclasses

from tflite_export.operators import Convolution, DepthwiseConvolution, Pad
from tflite_export.plan import Operator, Plan


def fold_padding(plan: Plan) -> Plan:
    """Drops every PAD that its convolutions' own SAME padding can do."""
    operators = list(plan.operators)
    for pad in [op for op in operators if isinstance(op, Pad)]:
        (source,) = pad.inputs
        readers = [op for op in operators if pad.output in op.inputs]
        if pad.output not in plan.outputs and all(_pads_alike(pad, op) for op in readers):
            operators.remove(pad)
            for reader in readers:
                window = dataclasses.replace(reader.window, padding="SAME")
                layers = (*pad.layers, *reader.layers) if reader.layers else ()
                padded = dataclasses.replace(reader, inputs=(source,), window=window, layers=layers)
                operators[operators.index(reader)] = padded
            # What reads through them reads what the PAD read.
            operators = [_without_source(op, pad) for op in operators]
    return dataclasses.replace(plan, operators=tuple(operators))


def _without_source(operator: Operator, pad: Pad) -> Operator:
    if pad.output not in operator.sources:
        return operator
    sources = tuple(pad.inputs[0] if x is pad.output else x for x in operator.sources)
    return dataclasses.replace(operator, sources=sources, layers=(*pad.layers, *operator.layers))


def explicit_padding(plan: Plan) -> Plan:
    """Writes VALID where SAME pads nothing, and PAD with VALID where a kernel is smaller than its stride.

    In the last case TensorFlow's own interpreter, up to 2.21 at least, computes SAME wrongly.
    """
    operators: list[Operator] = []
    for operator in plan.operators:
        if not isinstance(operator, (Convolution, DepthwiseConvolution)) or operator.window.padding == "VALID":
            operators.append(operator)
            continue
        (x,) = operator.inputs
        valid = dataclasses.replace(operator.window, padding="VALID")
        sizes = _sizes(x.shape, operator)
        paddings = tuple(_same_padding(*size) for size in sizes)
        if not any(sum(both) for both in paddings):
            operators.append(dataclasses.replace(operator, window=valid))
        elif any(_leaves_a_rest(*size) for size in sizes):
            height, width = (size + sum(both) for size, both in zip(x.shape, paddings, strict=False))
            name = f"{operator.output.name}/padded"
            padded = dataclasses.replace(x, name=name, shape=(height, width, x.shape[2]), layer=None)
            operators.append(Pad((x,), padded, paddings))
            changed = dataclasses.replace(operator, inputs=(padded,), window=valid)
            operators.append(dataclasses.replace(changed, sources=operator.sources or operator.inputs))
        else:
            operators.append(operator)
    return dataclasses.replace(plan, operators=tuple(operators))


def _sizes(shape, operator) -> list[tuple[int, int, int, int]]:
    """Input size, kernel, stride and dilation, for height and width."""
    window = operator.window
    return list(zip(shape, operator.weights.shape, window.strides, window.dilations, strict=False))


def _pads_alike(pad: Pad, reader: Operator) -> bool:
    if not isinstance(reader, (Convolution, DepthwiseConvolution)) or reader.window.padding != "VALID":
        return False
    return pad.paddings == tuple(_same_padding(*size) for size in _sizes(pad.inputs[0].shape, reader))


def _same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """What TensorFlow's SAME puts before and after an axis."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def _leaves_a_rest(size: int, kernel: int, stride: int, dilation: int) -> bool:
    """Whether the last window ends before the axis does."""
    return (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 < size
