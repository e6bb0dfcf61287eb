"""The layers satkeras knows: a table with a row for each Keras class."""

import dataclasses
import enum
import functools
from collections.abc import Callable

import tensorflow as tf

from satkeras._compat import keras
from satkeras.models.graph import Node

_layers = keras.layers
# Layers that satkeras replaces in a quantized model by subclasses of its own.
_FLOAT_LAYERS = (_layers.ReLU, _layers.AveragePooling2D, _layers.GlobalAveragePooling2D)


class Kind(enum.Enum):
    """What a layer does to quantized tensors."""

    INPUT = "makes the model's input"
    LINEAR = "multiplies its input by a kernel; its input gets the low bit width"
    BATCH_NORM = "scales and shifts each channel; folds into the linear layer before it"
    RELU = "fuses into the layer before it"
    ADD = "sums tensors of different scales"
    AVERAGE = "averages over space, on its input's grid"
    SOFTMAX = "makes probabilities, on a fixed 8-bit scale"
    PASS = "moves, pads or selects values; its output has its input's scale"


@dataclasses.dataclass(frozen=True)
class Row:
    """How one Keras class is handled.

    Attributes:
      kind: its role.
      problem: given a node, says why this use of the layer is not supported, or None.
    """

    kind: Kind
    problem: Callable[[Node], str | None] = lambda node: None


def kind_of(node: Node) -> Kind | None:
    """The role of a node's layer, None for a class without a row."""
    row = TABLE.get(float_class(node.layer))
    return None if row is None else row.kind


def float_class(layer: keras.layers.Layer) -> type:
    """The Keras class of a layer; for one of satkeras' own, which a quantized model has, that of the float model."""
    own = type(layer)
    return next(cls for cls in own.__mro__ if not cls.__module__.startswith("satkeras.")) if _is_own(own) else own


def _is_own(cls: type) -> bool:
    return cls.__module__.startswith("satkeras.") and issubclass(cls, _FLOAT_LAYERS)


def problem_of(node: Node) -> str | None:
    """Why the node is not supported, or None."""
    row = TABLE.get(type(node.layer))
    if row is None:
        return "no rule for this class"
    if row.kind is not Kind.INPUT and node.layer.dtype == "float64":
        return "computes in float64; build it with dtype='float32'"
    return row.problem(node)


def canonical_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Fresh layers that together compute `layer`: activations stand alone, as ReLU, Softmax or linear Activation.

    The first one takes over `layer`'s weights. An activation without a rule is left where it is.
    """
    config = layer.get_config()
    activation = getattr(layer, "activation", None)
    make = _maker_of(activation)
    if make is None or type(layer) not in TABLE:
        return [type(layer).from_config(config)]
    if type(layer) is _layers.Activation:
        return [make(name=layer.name, dtype=layer.dtype_policy)]
    bare = type(layer).from_config({**config, "activation": "linear"})
    if activation is keras.activations.linear:
        return [bare]
    return [bare, make(name=f"{layer.name}_{_activation_name(activation)}", dtype=layer.dtype_policy)]


def _maker_of(activation) -> Callable[..., keras.layers.Layer] | None:
    """Makes the layer, given its name and dtype, that computes an `activation=` argument; None if it has no rule."""
    if type(activation) is _layers.ReLU:
        return lambda **given: _layers.ReLU.from_config({**activation.get_config(), **given})
    return _ACTIVATIONS.get(activation)


def _activation_name(activation) -> str:
    return getattr(activation, "__name__", None) or getattr(activation, "name", None) or repr(activation)


_ACTIVATIONS = {
    keras.activations.linear: functools.partial(_layers.Activation, "linear"),
    keras.activations.relu: _layers.ReLU,
    tf.nn.relu: _layers.ReLU,
    tf.nn.relu6: functools.partial(_layers.ReLU, 6.0),
    keras.activations.softmax: _layers.Softmax,
    tf.nn.softmax: _layers.Softmax,
}


def _input_rank(node: Node) -> int:
    return len(node.inputs[0].shape) + 1


def _activation_problem(node: Node) -> str | None:
    activation = node.layer.activation
    if node.layer.activity_regularizer is not None and activation is not keras.activations.linear:
        return "has an activity_regularizer and an activation, which is split off: make the activation a layer"
    if type(activation) is _layers.ReLU:
        return _relu_layer_problem(activation)
    if _maker_of(activation) is not None:
        return None
    return f"activation {_activation_name(activation)!r} has no rule"


def _channels_problem(node: Node) -> str | None:
    if getattr(node.layer, "data_format", "channels_last") != "channels_last":
        return "needs data_format='channels_last'"
    return None


def _convolution_problem(node: Node) -> str | None:
    if getattr(node.layer, "groups", 1) != 1:
        return "grouped convolutions need CONV_2D version 6, newer than TF 2.6's"
    if getattr(node.layer, "depth_multiplier", 1) != 1:
        return "needs depth_multiplier=1"
    return _channels_problem(node) or _activation_problem(node)


def _dense_problem(node: Node) -> str | None:
    if _input_rank(node) != 2:
        return f"needs inputs of shape (batch, features), gets rank {_input_rank(node)}; put a Flatten before it"
    return _activation_problem(node)


def _batch_norm_problem(node: Node) -> str | None:
    axes = [axis % _input_rank(node) for axis in _as_list(node.layer.axis)]
    if axes != [_input_rank(node) - 1]:
        return f"needs axis=-1, has axis={node.layer.axis}"
    if _input_rank(node) not in (2, 4):
        return f"needs inputs of rank 2 or 4, gets rank {_input_rank(node)}"
    return None


def _relu_problem(node: Node) -> str | None:
    return _relu_layer_problem(node.layer)


def _relu_layer_problem(layer: keras.layers.ReLU) -> str | None:
    if layer.negative_slope or layer.threshold:
        return f"needs negative_slope=0 and threshold=0, has {float(layer.negative_slope)} and {float(layer.threshold)}"
    return None


def _add_problem(node: Node) -> str | None:
    shapes = {parent.shape for parent in node.inputs}
    if len(node.inputs) != 2 or len(shapes) != 1:
        return f"needs two inputs of one shape, gets {[parent.shape for parent in node.inputs]}"
    return None


def _softmax_problem(node: Node) -> str | None:
    if _as_list(node.layer.axis) not in ([-1], [_input_rank(node) - 1]):
        return f"needs axis=-1, has axis={node.layer.axis}"
    return None


def _as_list(axis) -> list[int]:
    return list(axis) if isinstance(axis, (list, tuple)) or hasattr(axis, "__iter__") else [axis]


TABLE: dict[type, Row] = {
    _layers.InputLayer: Row(Kind.INPUT),
    _layers.Conv2D: Row(Kind.LINEAR, _convolution_problem),
    _layers.DepthwiseConv2D: Row(Kind.LINEAR, _convolution_problem),
    _layers.Dense: Row(Kind.LINEAR, _dense_problem),
    _layers.BatchNormalization: Row(Kind.BATCH_NORM, _batch_norm_problem),
    _layers.ReLU: Row(Kind.RELU, _relu_problem),
    _layers.Softmax: Row(Kind.SOFTMAX, _softmax_problem),
    _layers.Activation: Row(Kind.PASS, _activation_problem),
    _layers.Add: Row(Kind.ADD, _add_problem),
    _layers.AveragePooling2D: Row(Kind.AVERAGE, _channels_problem),
    _layers.GlobalAveragePooling2D: Row(Kind.AVERAGE, _channels_problem),
    _layers.MaxPooling2D: Row(Kind.PASS, _channels_problem),
    _layers.GlobalMaxPooling2D: Row(Kind.PASS, _channels_problem),
    _layers.ZeroPadding2D: Row(Kind.PASS, _channels_problem),
    _layers.Flatten: Row(Kind.PASS, _channels_problem),
    _layers.Reshape: Row(Kind.PASS),
    _layers.Dropout: Row(Kind.PASS),
    _layers.SpatialDropout2D: Row(Kind.PASS, _channels_problem),
}
