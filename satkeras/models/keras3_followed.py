"""What a user's own classes of Keras 3 compute: their calls, followed on symbolic tensors."""

import inspect
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from satkeras.models.followed import class_of, has_own_steps
from satkeras.models.unsupported import cannot_be_followed

FEW_SIZES = 128  # what an open size is while a model runs once


def is_keras3s(operation) -> bool:
    """Whether an operation is of one of Keras 3's classes, or of a class that inherits the call of one."""
    return class_of(operation, "keras").__module__.split(".")[0] == "keras"


def functional(model):
    """A subclassed model of one input as the functional one that its `call` makes; any other model as it is."""
    shapes = list((getattr(model, "_build_shapes_dict", None) or {}).values())
    is_functional = hasattr(getattr(model, "_functional", model), "_run_through_graph")
    if is_functional or not model.built or len(shapes) != 1 or not isinstance(shapes[0], tuple):
        return model
    if has_own_steps(model, sys.modules["keras"].Model):
        return model
    try:
        return followed(model, [sys.modules["keras"].Input(shapes[0][1:])])
    except ValueError:
        return model


def is_function(layer) -> bool:
    """Whether a layer of the user's class is nothing but a function of tensors, alike in training."""
    if layer._layers or layer.weights or "training" in inspect.signature(layer.call).parameters:
        return False
    return not _adds_losses(layer, arguments_of(layer)[0])


def arguments_of(layer) -> tuple[list, dict]:
    """What a layer's first call was given: the positional arguments, and the others."""
    given = layer._inbound_nodes[0].arguments
    return list(given.args), given.kwargs


def followed(layer, given: list, options: Mapping[str, Any] = MappingProxyType({})):
    """What the call of a layer of the user's class does, as a model of Keras 3.

    Args:
      layer: built.
      given: tensors that it is called on.
      options: the other arguments of that call.

    Raises:
      ValueError: it has weights or losses of its own, or does something else in training.
    """
    keras3 = sys.modules["keras"]
    own_weights = layer._trainable_variables or layer._non_trainable_variables
    if own_weights or set(options) - {"training"} or _adds_losses(layer, given):
        raise ValueError(cannot_be_followed(type(layer).__name__))
    inputs = keras3.tree.map_structure(lambda x: keras3.Input(x.shape[1:], dtype=x.dtype), given)
    modes = (
        [{"training": mode} for mode in (True, None)]
        if "training" in inspect.signature(layer.call).parameters
        else [{}]
    )
    try:
        models = [keras3.Model(inputs, layer.call(*inputs, **mode), name=layer.name) for mode in modes]
    except Exception as error:  # a stranger's function may raise anything
        raise ValueError(cannot_be_followed(type(layer).__name__)) from error
    if len({tuple(map(_signature, model.operations)) for model in models}) > 1:
        raise ValueError(cannot_be_followed(type(layer).__name__))
    return models[-1]


def _signature(operation) -> tuple:
    """An operation's class, and of one that is no layer its options and the numbers that it is called with."""
    if hasattr(operation, "get_weights"):
        return (type(operation),)
    options = sorted(
        (name, repr(value)) for name, value in vars(operation).items() if name[0] != "_" and name != "name"
    )
    given = sys.modules["keras"].tree.flatten(arguments_of(operation))
    return type(operation), tuple(options), tuple("" if hasattr(x, "_keras_history") else repr(x) for x in given)


def _adds_losses(layer, given: list) -> bool:
    """Whether a call adds losses, which Keras 3 keeps of calls with values alone."""
    layer(*sys.modules["keras"].tree.map_structure(_zeros, given))
    return bool(layer._losses)


def _zeros(x) -> np.ndarray:
    return np.zeros([size or FEW_SIZES for size in x.shape], x.dtype)
