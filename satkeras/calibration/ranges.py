"""Ranges and statistics of a quantized model from data, in two passes over it.

The first pass runs the model without its quantizers and samples every tensor that is quantized. The second runs it with
them, beside the first, and finds what quantization changed in the mean and variance of each channel. Neither holds more
than a batch and, for each tensor, a sample of fixed size.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tensorflow as tf

from satkeras._compat import keras, output_variables, weight_variables
from satkeras.calibration.kernels import kernels_of
from satkeras.calibration.sampling import Moments, Sample, moments_of
from satkeras.calibration.units import CheckedBatches, batch_size_for
from satkeras.models.graph import Graph, Node, read_graph
from satkeras.models.insertion import has_quantizer, quantizes_tensor
from satkeras.models.layers import Kind, float_class, kind_of


def set_ranges(
    model: keras.Model,
    batches: CheckedBatches,
    pretrained: keras.Model,
    rounds: Callable[[Node, tf.Tensor], None] | None = None,
) -> None:
    """Sets the range of every quantized tensor, and corrects batch norms and biases by what quantization changed.

    A range suits the tensor as the float model has it. To a batch norm's moving statistics the change is added that the
    data's statistics show from the float model to the quantized one; they are not estimated anew, because a network
    that was trained on augmented images has statistics that no plain image shows. In a network that was never trained
    they are the data's: with those, training will normalize. Where no batch norm follows, the bias takes the change of
    the mean.

    Args:
      model: a quantized model.
      batches: the data.
      pretrained: the float model that was quantized.
      rounds: called once with each node and what it reads in the first batch, the layers before it being rounded; may
        move its latent weights.
    """
    graph = read_graph(model)
    batches = batches.of_size(batch_size_for(model))
    trained = _was_trained(pretrained)
    # As they are now, because `rounds` moves the latent ones.
    kernels = {
        name: quantizer.unrounded(latent, variables)
        for name, (latent, quantizer, variables) in kernels_of(model).items()
    }
    samples = {node: Sample() for node in graph.nodes if quantizes_tensor(node.layer)}
    for batch in batches:
        for node, inputs, _ in _float_walk(graph, batch, trained, kernels):
            if node in samples:
                samples[node].add(inputs[0])
    for node, sample in samples.items():
        quantizer, variables = output_variables(node.layer)
        quantizer.calibrate(sample.values, variables)
    shifts = {node: _Shift(node, trained) for node in graph.nodes if _is_corrected(node, graph)}
    for batch in batches:
        for shift in shifts.values():
            shift.undo()
        before = {
            node: moments_of(_seen(node, inputs, output))
            for node, inputs, output in _float_walk(graph, batch, trained, kernels)
            if node in shifts
        }

        def corrected(node, inputs, before=before, rounds=rounds):
            if rounds is not None:
                rounds(node, inputs[0])
            return shifts[node].output(inputs, before[node]) if node in shifts else call_node(node, inputs)

        for _ in walk(graph, batch, corrected):
            pass
        rounds = None
    for shift in shifts.values():
        shift.apply()


def walk(graph: Graph, batch, compute: Callable) -> Iterator[tuple[Node, list, tf.Tensor]]:
    """Runs a batch through a graph; yields each node with its inputs and its output, and lets go of what was read."""
    readers_left = {node: len(graph.consumers(node)) for node in graph.nodes}
    values: dict[Node, tf.Tensor] = dict(zip(graph.inputs, map(tf.constant, batch), strict=True))
    for node in graph.nodes:
        if not node.inputs:
            continue
        inputs = [values[parent] for parent in node.inputs]
        values[node] = compute(node, inputs)
        yield node, inputs, values[node]
        for parent in node.inputs:
            readers_left[parent] -= 1
            if not readers_left[parent]:
                values.pop(parent, None)


def _float_walk(graph: Graph, batch, trained: bool, kernels: Mapping[str, tf.Tensor]):
    return walk(graph, batch, lambda node, inputs: _without_quantizer(node, inputs, trained, kernels))


def call_node(node: Node, inputs: list) -> tf.Tensor:
    """What a node's layer returns in inference mode."""
    mode = {"training": False} if node.layer._expects_training_arg else {}
    return node.layer(inputs if len(inputs) > 1 else inputs[0], **mode)


def _without_quantizer(node: Node, inputs: list, trained: bool, kernels: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """What a node of a quantized model computes if nothing is rounded or clipped, with these kernels."""
    layer, x = node.layer, inputs[0]
    if quantizes_tensor(layer):
        return x
    if has_quantizer(layer):
        latent, *_ = weight_variables(layer)
        config = layer.quantize_config
        config.set_quantize_weights(layer.layer, [tf.cast(kernels[layer.name], x.dtype)])
        output = layer.layer.call(x)
        config.set_quantize_weights(layer.layer, [latent])
        return output
    if not trained and is_correctable_norm(node):
        mean, variance, _ = moments_of(x)
        return normalized(layer, x, mean, variance)
    if float_class(layer) is not type(layer):  # one of satkeras' own, which rounds biases or means
        return float_class(layer).call(layer, x)
    return call_node(node, inputs)


def normalized(norm: keras.layers.BatchNormalization, x, mean, variance) -> tf.Tensor:
    """What a batch norm returns with other statistics than its own."""
    gamma, beta = (norm.gamma if norm.scale else None), (norm.beta if norm.center else None)
    y = tf.nn.batch_normalization(
        tf.cast(x, tf.float32), np.float32(mean), np.float32(variance), beta, gamma, norm.epsilon
    )
    return tf.cast(y, x.dtype)


def is_correctable_norm(node: Node) -> bool:
    """Whether a node is a batch norm whose statistics may change: not a frozen one."""
    is_norm = isinstance(node.layer, keras.layers.BatchNormalization)
    return is_norm and node.layer.trainable and node.training is not False


def _is_corrected(node: Node, graph: Graph) -> bool:
    """Whether a layer, called once, may take up what quantization changed: a batch norm, or else a lone bias."""
    if sum(other.layer is node.layer for other in graph.nodes) > 1:
        return False
    if kind_of(node) is Kind.BATCH_NORM:
        return is_correctable_norm(node)
    if not has_quantizer(node.layer) or quantizes_tensor(node.layer):
        return False
    readers = [kind_of(reader) for reader in graph.consumers(node)]
    return node.layer.trainable and node.layer.layer.use_bias and Kind.BATCH_NORM not in readers


def _seen(node: Node, inputs: list, output):
    """The tensor whose moments count: what a batch norm reads, what a layer with a bias returns."""
    return inputs[0] if kind_of(node) is Kind.BATCH_NORM else output


@dataclasses.dataclass(eq=False)
class _Shift:
    """What quantization changes in one layer's moments, over the batches so far."""

    node: Node
    trained: bool
    before: Moments = dataclasses.field(default_factory=Moments)
    after: Moments = dataclasses.field(default_factory=Moments)

    def __post_init__(self):
        self._own = [variable.numpy() for variable in self._variables]

    @property
    def _variables(self) -> list[tf.Variable]:
        layer = self.node.layer
        is_norm = kind_of(self.node) is Kind.BATCH_NORM
        return [layer.moving_mean, layer.moving_variance] if is_norm else [layer.layer.bias]

    def output(self, inputs: list, before: tuple) -> tf.Tensor:
        """The layer's output for a batch, corrected by the change in this batch alone; takes note of the change."""
        plain = None if kind_of(self.node) is Kind.BATCH_NORM else call_node(self.node, inputs)
        after = moments_of(_seen(self.node, inputs, plain))
        self.before.add(*before)
        self.after.add(*after)
        # In the layer itself, because the rounding of a bias behind it reads its variables.
        self._set(self._corrected(before[:2], after[:2]))
        return call_node(self.node, inputs)

    def undo(self) -> None:
        """Gives the layer back what it had, for the float model to run on."""
        self._set(self._own)

    def apply(self) -> None:
        """Changes the layer by what all batches showed."""
        self._set(self._corrected(*((moments.mean, moments.variance) for moments in (self.before, self.after))))

    def _set(self, values) -> None:
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(np.float32(value))

    def _corrected(self, before, after) -> list[np.ndarray]:
        """The variables, moved as the data's moments moved; in a network never trained batch norms take the data's."""
        (old_mean, old_variance), (mean, variance) = before, after
        if kind_of(self.node) is not Kind.BATCH_NORM:
            return [self._own[0] - (mean - old_mean) if self.trained else self._own[0]]
        if not self.trained:
            return [mean, variance]
        own_mean, own_variance = self._own
        epsilon = self.node.layer.epsilon
        moved = (own_variance + epsilon) * (variance + epsilon) / (old_variance + epsilon) - epsilon
        return [own_mean + mean - old_mean, np.maximum(moved, 0)]


def _was_trained(model: keras.Model) -> bool:
    """Whether any batch norm of a model is not as Keras makes it; or a model without them, which tells nothing."""
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    return not norms or any(
        np.any(norm.moving_mean.numpy() != 0)
        or np.any(norm.moving_variance.numpy() != 1)
        or (norm.scale and np.ptp(norm.gamma.numpy()) != 0)
        or (norm.center and np.ptp(norm.beta.numpy()) != 0)
        for norm in norms
    )
