"""A quantized model at a glance: bits, grids, clip values, bytes and multiplications of each layer."""

import collections
import dataclasses
import math

import numpy as np

from satkeras._compat import keras, output_variables, weight_variables
from satkeras.models.checks import require_quantized
from satkeras.models.graph import Node, read_graph
from satkeras.models.insertion import has_quantizer, quantizes_tensor
from satkeras.models.layers import Kind, kind_of
from satkeras.quantizers import Quantizer

FLOAT_BITS = 32


@dataclasses.dataclass(frozen=True)
class LayerSummary:
    """One call of a convolution, depthwise convolution or dense layer.

    Attributes:
      name: the layer in the quantized model, numbered from the second call of a shared layer on.
      kind: its Keras class.
      weight_bits: width of its weights, None for full precision.
      weight_grid: the integers of its weights, such as "odd -15..15" or "-127..127".
      input_bits: width of its input, None for full precision.
      input_grid: the integers of its input, such as "0..15".
      alpha: the largest value of its input that is not clipped, in the input's units: PACT's learned alpha, or the
        moving range. None if the input is in full precision or has seen no data; NaN after a training that diverged.
      weight_bytes: its weights at their width, `ceil(weights * bits / 8)`; 0 for later calls of a shared layer.
      bias_bytes: 4 for each output channel: int32 in the file, batch norm folded in; 0 for later calls.
      macs: multiplications of a weight and an input for one image, padding included; None if its size is not fixed.
    """

    name: str
    kind: str
    weight_bits: int | None
    weight_grid: str
    input_bits: int | None
    input_grid: str
    alpha: float | None
    weight_bytes: int
    bias_bytes: int
    macs: int | None


@dataclasses.dataclass(frozen=True)
class Summary:
    """What `summary` found; print it for a table.

    Attributes:
      name: the model's.
      layers: its convolutions and dense layers, in the order of computation.
      float_bytes: every parameter of the float model, batch norms' too, in float32.
    """

    name: str
    layers: tuple[LayerSummary, ...]
    float_bytes: int

    @property
    def weight_bytes(self) -> int:
        """All weights at their widths."""
        return sum(layer.weight_bytes for layer in self.layers)

    @property
    def bias_bytes(self) -> int:
        """All biases."""
        return sum(layer.bias_bytes for layer in self.layers)

    @property
    def macs(self) -> int | None:
        """Multiplications for one image, the float model's as well; None if a size is not fixed."""
        counts = [layer.macs for layer in self.layers if layer.macs is not None]
        return sum(counts) if len(counts) == len(self.layers) else None

    @property
    def macs_by_width(self) -> dict[tuple[int | None, int | None], int]:
        """Multiplications for one image by (weight bits, input bits), most first; layers of unknown size left out."""
        found = collections.Counter()
        for layer in self.layers:
            found[layer.weight_bits, layer.input_bits] += layer.macs or 0
        return dict(found.most_common())

    def __str__(self):
        heads = ("layer", "kind", "W", "grid of W", "A", "grid of A", "alpha", "weight bytes", "bias bytes", "MACs")
        rows = [
            (
                layer.name,
                layer.kind,
                _bits(layer.weight_bits),
                layer.weight_grid,
                _bits(layer.input_bits),
                layer.input_grid,
                "-" if layer.alpha is None else f"{layer.alpha:.4g}",
                f"{layer.weight_bytes:,}",
                f"{layer.bias_bytes:,}",
                _macs(layer.macs),
            )
            for layer in self.layers
        ]
        total = self.weight_bytes + self.bias_bytes
        by_width = [f"W{_bits(w)}A{_bits(a)} {_macs(count)}" for (w, a), count in self.macs_by_width.items()]
        return "\n".join(
            [
                f"{self.name}: bits of weights (W) and inputs (A) of {len(rows)} layers",
                "",
                table(heads, rows),
                "",
                f"bytes: {total:,} = weights {self.weight_bytes:,} + biases {self.bias_bytes:,}; float model "
                f"{self.float_bytes:,} ({self.float_bytes / total:.1f} times as many)",
                f"MACs: {_macs(self.macs)} for an image, as in the float model: {', '.join(by_width)}",
            ]
        )


def summary(model: keras.Model) -> Summary:
    """Bits, grids, clip values, bytes and multiplications of a model that `quantize_model` returned.

    The bytes are those of the weights at their widths. The exporter stores them as int8, where a 4-bit weight is a
    byte, and adds an operator where a layer's input branches off a stream.

    Raises:
      TypeError: not a tf_keras model; ValueError: one without satkeras quantizers.
    """
    require_quantized(model, "summary")
    nodes = [node for node in read_graph(model).nodes if _is_linear(node)]
    first = {node.layer: node for node in reversed(nodes)}
    variables = {id(variable): variable for layer in model.layers for variable in _float_variables(layer)}
    float_bytes = sum(FLOAT_BITS // 8 * math.prod(variable.shape) for variable in variables.values())
    return Summary(model.name, tuple(_row(node, first[node.layer] is node) for node in nodes), float_bytes)


def widths(model: keras.Model) -> list[tuple[int | None, int | None]]:
    """The pairs of weight bits and input bits in a model that `quantize_model` returned; None for full precision."""
    nodes = filter(_is_linear, read_graph(model).nodes)
    return list(dict.fromkeys((weight_variables(node.layer)[1].width, _width(_reader(node))) for node in nodes))


def clip_value(layer: keras.layers.Layer) -> float | None:
    """The largest value that a layer which quantizes a tensor does not clip.

    Args:
      layer: one for which `quantizes_tensor` holds.

    Returns:
      None before the first data; NaN if the value is not finite.
    """
    quantizer, variables = output_variables(layer)
    values = {name: value.numpy() for name, value in variables.items()}
    if not all(np.isfinite(value).all() for value in values.values()):
        return math.nan
    try:
        params = quantizer.quant_params(values)
    except ValueError:  # it has seen no data
        return None
    return float(params.dequantize(params.qmax))


def _is_linear(node: Node) -> bool:
    return has_quantizer(node.layer) and not quantizes_tensor(node.layer)


def _row(node: Node, is_first: bool) -> LayerSummary:
    kernel, quantizer, _ = weight_variables(node.layer)
    weights, positions = math.prod(kernel.shape), node.shape[:-1]
    stored, reader = _stored_input(node), _reader(node)
    return LayerSummary(
        name=node.name,
        kind=type(node.layer.layer).__name__,
        weight_bits=quantizer.width,
        weight_grid=_grid(quantizer),
        input_bits=_width(reader),
        input_grid=_grid(reader),
        alpha=None if stored is None else clip_value(stored),
        weight_bytes=math.ceil(weights * (quantizer.width or FLOAT_BITS) / 8) if is_first else 0,
        bias_bytes=4 * node.shape[-1] if is_first else 0,
        macs=None if None in positions else weights * math.prod(size or 0 for size in positions),
    )


def _stored_input(node: Node) -> keras.layers.Layer | None:
    """The layer that quantizes what a node reads, None if it reads a float tensor."""
    (source,) = node.inputs
    while kind_of(source) in (Kind.PASS, Kind.ON_GRID):
        (source,) = source.inputs
    return source.layer if quantizes_tensor(source.layer) else None


def _reader(node: Node) -> Quantizer | None:
    """The quantizer of what a node reads."""
    stored = _stored_input(node)
    return None if stored is None else output_variables(stored)[0]


def _width(quantizer: Quantizer | None) -> int | None:
    return None if quantizer is None else quantizer.width


def _grid(quantizer: Quantizer | None) -> str:
    if quantizer is None or quantizer.num_bits is None:
        return "float"
    low, high = quantizer.levels
    return f"{'odd ' if quantizer.spacing == 2 else ''}{low}..{high}"


def _float_variables(layer) -> list:
    """The variables of a layer that its float model has."""
    if not has_quantizer(layer):
        return layer.weights
    if quantizes_tensor(layer):
        return []
    kernel, _, _ = weight_variables(layer)
    return [kernel, layer.layer.bias] if layer.layer.use_bias else [kernel]


def _bits(bits: int | None) -> str:
    return str(bits or FLOAT_BITS)


def _macs(macs: int | None) -> str:
    return "?" if macs is None else f"{macs:,}"


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Plain text columns, the first two to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    aligned = [[cell.ljust(w) for cell, w in zip(row[:2], widths, strict=False)] for row in (heads, *rows)]
    for line, row in zip(aligned, (heads, *rows), strict=True):
        line += [cell.rjust(w) for cell, w in zip(row[2:], widths[2:], strict=True)]
    lines = ["  ".join(line) for line in aligned]
    return "\n".join(line.rstrip() for line in [lines[0], "-" * len(lines[0]), *lines[1:]])
