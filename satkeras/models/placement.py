"""The walk over the layer graph that decides which tensor gets which quantizer.

Two rules, from the papers: the *input of a convolution or dense layer* gets the scheme's width, and every other tensor
that is stored stays at 8 bits. Some layers stay on the 8-bit grid of their input, or have a fixed one. A tensor is
stored unless its only consumer folds it (batch norm into the linear layer before it), fuses it (ReLU) or joins it with
others, all of which are then stored on one grid.

A stored tensor that several consumers want in different ways is a *stream*: it gets 8 bits, and each width that its
convolutions ask for branches off it through a quantizer of its own. So does a quantizer that reads 8 bits.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import TypeAlias

from satkeras._compat import keras
from satkeras.models.graph import Graph, Node
from satkeras.models.layers import Kind, kind_of, row_of
from satkeras.quantizers import InputQuantizer, Quantizer
from satkeras.schemes import Scheme

Codes: TypeAlias = Mapping[str, InputQuantizer]
# Layers whose results have 8 bits without a quantizer.
_ON_8_BITS = (Kind.ON_GRID, Kind.FIXED)
# A consumer on the right leaves its producer's result unstored.
_FOLDED_BY: dict[Kind | None, set[Kind]] = {
    Kind.LINEAR: {Kind.BATCH_NORM, Kind.RELU, Kind.JOIN},
    Kind.BATCH_NORM: {Kind.BATCH_NORM, Kind.RELU, Kind.JOIN},
    Kind.RELU: {Kind.JOIN},
    Kind.COMPUTE: {Kind.RELU, Kind.JOIN},
    Kind.JOIN: {Kind.RELU, Kind.JOIN},
}


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where quantizers go.

    Attributes:
      weights: the quantizer of each linear layer's kernel.
      tensors: the quantizer of each stored tensor.
      branches: for a linear node whose input branches off a stream, the quantizer of that branch. Nodes with equal
        quantizers on the same tensor share one branch.
    """

    weights: Mapping[keras.layers.Layer, Quantizer]
    tensors: Mapping[Node, Quantizer]
    branches: Mapping[Node, Quantizer]


def place(graph: Graph, schemes: Mapping[keras.layers.Layer, Scheme], streams: Scheme, codes: Codes):
    """Decides every quantizer of a graph of supported, canonical layers.

    Args:
      graph: the float model.
      schemes: the scheme of each linear layer, first and last layers' widths already in it.
      streams: the scheme that the tensors outside linear layers' inputs follow.
      codes: the quantizer of each of the model's inputs, by the name of its layer.
    """
    walk = _Walk(graph, schemes, streams, codes)
    weights = {node.layer: walk.weight_quantizer(node) for node in graph.nodes if kind_of(node) is Kind.LINEAR}
    tensors: dict[Node, Quantizer] = {}
    branches: dict[Node, Quantizer] = {}
    for node in graph.nodes:
        if kind_of(node) in _ON_8_BITS:
            branches.update(walk.branches_off_8_bits(node))
        if walk.is_stored(node):
            stored, branched = walk.tensor_quantizers(node)
            branches.update(branched)
            if stored is not None:
                tensors[node] = stored
    return Placement(weights, tensors, branches)


def first_layers(graph: Graph) -> set[Node]:
    """The linear nodes before which no other linear node comes."""
    before: set[Node] = set()
    for node in graph.nodes:
        if any(_is_linear(parent) or parent in before for parent in node.inputs):
            before.add(node)
    return {node for node in graph.nodes if _is_linear(node) and node not in before}


def last_layers(graph: Graph) -> set[Node]:
    """The linear nodes after which no other linear node comes."""
    after: set[Node] = set()
    for node in reversed(graph.nodes):
        if any(_is_linear(consumer) or consumer in after for consumer in graph.consumers(node)):
            after.add(node)
    return {node for node in graph.nodes if _is_linear(node) and node not in after}


def _averaged_before(node: Node) -> int:
    """How many positions of an image the average pool before a layer joins to one; 1 without a pool."""
    (before,) = node.inputs
    while kind_of(before) is Kind.PASS and len(before.inputs) == 1:
        (before,) = before.inputs
    if isinstance(before.layer, keras.layers.GlobalAveragePooling2D):
        return math.prod(size for size in before.inputs[0].shape[:2] if size is not None)
    if isinstance(before.layer, keras.layers.AveragePooling2D):
        return math.prod(before.layer.pool_size)
    return 1


def _is_linear(node: Node) -> bool:
    return kind_of(node) is Kind.LINEAR


@dataclasses.dataclass(frozen=True)
class _Walk:
    graph: Graph
    schemes: Mapping[keras.layers.Layer, Scheme]
    streams: Scheme
    codes: Codes

    @functools.cached_property
    def _last(self) -> set[Node]:
        return last_layers(self.graph)

    def weight_quantizer(self, node: Node) -> Quantizer:
        scheme = self.schemes[node.layer]
        calls = [call for call in self.graph.nodes if call.layer is node.layer]
        readers = [reader.layer for call in calls for reader in self.graph.consumers(call)]
        followed = [isinstance(reader, keras.layers.BatchNormalization) for reader in readers]
        pattern = scheme.weights if followed and all(followed) else scheme.lone_weights
        return pattern.specialized(
            depthwise=isinstance(node.layer, keras.layers.DepthwiseConv2D),
            transposed=isinstance(node.layer, keras.layers.Conv2DTranspose),
            averaged=_averaged_before(node) if self._last.issuperset(calls) else None,
        )

    def is_stored(self, node: Node) -> bool:
        kind = kind_of(node)
        if kind is Kind.PASS or kind in _ON_8_BITS:
            return False
        consumers = self.graph.consumers(node)
        folds = len(consumers) == 1 and kind_of(consumers[0]) in _FOLDED_BY.get(kind, ())
        return not folds or node in self.graph.outputs

    def is_signed(self, node: Node) -> bool:
        if kind_of(node) is Kind.INPUT:
            return self.codes[node.layer.name].low < 0
        row = row_of(node.layer)
        if row.signed is None:
            return any(self.is_signed(parent) for parent in node.inputs)
        return row.signed

    def tensor_quantizers(self, node: Node) -> tuple[Quantizer | None, dict[Node, Quantizer]]:
        """The quantizer of a stored tensor, if it has one, and those of the branches off it."""
        signed = self.is_signed(node)
        wanted = {linear: self._input_quantizer(linear, signed) for linear in self._linear_consumers(node)}
        stored = self._stored_quantizer(node, set(wanted.values()), signed)
        return stored, {linear: own for linear, own in wanted.items() if not self._serves(stored, own, node)}

    def branches_off_8_bits(self, node: Node) -> dict[Node, Quantizer]:
        """The quantizers of the branches off a tensor that has 8 bits without a quantizer."""
        wanted = {
            linear: self._input_quantizer(linear, self.is_signed(node)) for linear in self._linear_consumers(node)
        }
        return {linear: own for linear, own in wanted.items() if own.num_bits != 8}

    def _stored_quantizer(self, node: Node, wanted: set[Quantizer], signed: bool) -> Quantizer | None:
        full_precision = self.streams.activation_bits is None
        if kind_of(node) is Kind.INPUT:
            return None if full_precision else self.codes[node.layer.name]
        only_linear = not self._has_other_consumers(node)
        if only_linear and len(wanted) == 1:
            (quantizer,) = wanted
            # Only a linear operator can clip a narrow signed grid at both ends (see the exporter's plan).
            clips = not signed or quantizer.num_bits == 8 or kind_of(node) in (Kind.LINEAR, Kind.BATCH_NORM)
            if clips and not quantizer.reads_8_bits:
                return quantizer
        eight_bits = [quantizer for quantizer in wanted if quantizer.num_bits == 8]
        if len(eight_bits) == 1 and not full_precision:
            return eight_bits[0]
        return None if full_precision else self.streams.streams.specialized(signed=signed)

    def _serves(self, stored: Quantizer | None, wanted: Quantizer, node: Node) -> bool:
        """Whether a consumer that wants `wanted` can take the tensor as it is stored."""
        return wanted == stored or (isinstance(stored, InputQuantizer) and wanted.num_bits == stored.num_bits)

    def _input_quantizer(self, node: Node, signed: bool) -> Quantizer:
        scheme = self.schemes[node.layer]
        last_dense = isinstance(node.layer, keras.layers.Dense) and node in self._last
        pattern = scheme.last_activations if last_dense else scheme.activations
        return pattern.specialized(signed=signed)

    def _through_pass(self, node: Node) -> list[Node]:
        """The consumers of a tensor's values, PASS layers seen through."""
        found = []
        for consumer in self.graph.consumers(node):
            found.extend(self._through_pass(consumer) if kind_of(consumer) is Kind.PASS else [consumer])
        return found

    def _linear_consumers(self, node: Node) -> list[Node]:
        return [
            consumer
            for consumer in self._through_pass(node)
            if _is_linear(consumer) and self.schemes[consumer.layer].activation_bits is not None
        ]

    def _has_other_consumers(self, node: Node) -> bool:
        return len(self._linear_consumers(node)) < len(self._through_pass(node)) or self._reaches_output(node)

    def _reaches_output(self, node: Node) -> bool:
        if node in self.graph.outputs:
            return True
        return any(
            kind_of(consumer) is Kind.PASS and self._reaches_output(consumer) for consumer in self.graph.consumers(node)
        )
