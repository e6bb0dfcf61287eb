"""Activation functions as core layers, for `activation=` arguments and `Activation` layers alike."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from satkeras._compat import keras, serializable

_layers = keras.layers
Layer = keras.layers.Layer


@serializable
class Sigmoid(keras.layers.Activation):
    """Keras' `Activation("sigmoid")`."""

    def __init__(self, activation="sigmoid", **kwargs):
        super().__init__(activation, **kwargs)


@serializable
class Tanh(keras.layers.Activation):
    """Keras' `Activation("tanh")`."""

    def __init__(self, activation="tanh", **kwargs):
        super().__init__(activation, **kwargs)


@serializable
class Elementwise(keras.layers.Activation):
    """Keras' `Activation` of a function of every element that has no operator: the file looks its results up."""


@serializable
class GeneralReLU(keras.layers.ReLU):
    """Keras' ReLU with a threshold, or a slope and a maximum."""


@serializable
def hard_sigmoid(x):
    """Keras 3's: `relu6(x + 3) / 6`. Keras 2's is another, `clip(0.2 x + 0.5, 0, 1)`."""
    return tf.nn.relu6(x + 3.0) / 6.0


@serializable
def hard_swish(x):
    """`x relu6(x + 3) / 6`, as in MobileNetV3."""
    return x * hard_sigmoid(x)


@dataclasses.dataclass(frozen=True)
class Step:
    """One of the layers that together compute an activation.

    Attributes:
      make: given name and dtype, the layer.
      reads: what it is called on: 0 is the activation's input, 1 the result of its first step, and so on.
      name: what it is called behind the activation's name; the last one has that name alone.
    """

    make: Callable[..., Layer]
    reads: tuple[int, ...] = (0,)
    name: str = ""


def steps_of(activation) -> tuple[Step, ...] | None:
    """What computes an `activation=` argument, in order; None if it has no rule."""
    if type(activation) in _LAYERS:
        config = activation.get_config()
        return (Step(lambda **given: type(activation).from_config({**config, **given})),)
    try:
        return _FUNCTIONS.get(activation)
    except TypeError:  # a callable that has no hash
        return None


def supported_functions() -> list[str]:
    """The names of the functions that have a rule."""
    return sorted({name_of(function).removesuffix("_v2") for function in _FUNCTIONS})


def name_of(activation) -> str:
    """What an activation is called."""
    return getattr(activation, "__name__", None) or getattr(activation, "name", None) or repr(activation)


def _gated(*gate: Step) -> tuple[Step, ...]:
    """The activation's input times what the gate makes of it."""
    return (*gate, Step(_layers.Multiply, (0, len(gate))))


def _ramp(slope: float) -> tuple[Step, ...]:
    """`clip(slope x + 0.5, 0, 1)`: it folds into the layer before it."""
    scaled = Step(functools.partial(_layers.Rescaling, slope, 0.5), (0,), "scaled")
    return scaled, Step(functools.partial(_layers.ReLU, 1.0), (1,), "gate")


_RELU, _RELU6 = (Step(_layers.ReLU),), (Step(functools.partial(_layers.ReLU, 6.0)),)
_SIGMOID, _TANH, _SOFTMAX = (Step(Sigmoid, (0,), "gate"),), (Step(Tanh),), (Step(_layers.Softmax),)
_LAYERS = (_layers.ReLU, _layers.LeakyReLU, _layers.ELU, _layers.Softmax)
_FUNCTIONS: dict[Any, tuple[Step, ...]] = {
    keras.activations.linear: (Step(functools.partial(_layers.Activation, "linear")),),
    keras.activations.relu: _RELU,
    tf.nn.relu: _RELU,
    tf.nn.relu6: _RELU6,
    keras.activations.sigmoid: _SIGMOID,
    tf.nn.sigmoid: _SIGMOID,
    keras.activations.tanh: _TANH,
    tf.nn.tanh: _TANH,
    keras.activations.softmax: _SOFTMAX,
    tf.nn.softmax: _SOFTMAX,
    keras.activations.hard_sigmoid: _ramp(0.2),
    hard_sigmoid: _ramp(1 / 6),
    keras.activations.swish: _gated(*_SIGMOID),
    tf.nn.silu: _gated(*_SIGMOID),
    hard_swish: _gated(*_ramp(1 / 6)),
}
_FUNCTIONS.update(
    (function, (Step(functools.partial(Elementwise, function)),))
    for function in (
        keras.activations.elu,
        keras.activations.exponential,
        keras.activations.gelu,
        keras.activations.mish,
        keras.activations.selu,
        keras.activations.softplus,
        keras.activations.softsign,
        tf.nn.elu,
        tf.nn.gelu,
        tf.nn.selu,
        tf.nn.softplus,
        tf.nn.softsign,
    )
)
