"""The only importer of names that tfmot and Keras keep private, and the one place that picks the Keras object.

TensorFlow 2.16 and later ship Keras 3 as `tf.keras`; tfmot works on Keras 2, which lives on as `tf_keras`. Everything
in satkeras imports `keras` from here, so no environment variable is needed.
"""

import dataclasses
import inspect
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from tensorflow_model_optimization.python.core.quantization.keras.quantize_layout_transform import (
    QuantizeLayoutTransform,
)
from tensorflow_model_optimization.python.core.quantization.keras.quantize_registry import QuantizeRegistry
from tensorflow_model_optimization.python.core.quantization.keras.quantize_scheme import QuantizeScheme
from tensorflow_model_optimization.python.core.quantization.keras.quantize_wrapper import (
    QuantizeWrapperV2 as TfmotQuantizeWrapper,
)
from tf_keras.src.applications.inception_resnet_v2 import CustomScaleLayer
from tf_keras.src.engine.base_layer import AddLoss, AddMetric
from tf_keras.src.engine.functional import Functional
from tf_keras.src.mixed_precision import autocast_variable
from tf_keras.src.utils import control_flow_util

__all__ = [
    "AddLoss",
    "AddMetric",
    "CustomScaleLayer",
    "LayerCall",
    "QuantizeLayoutTransform",
    "QuantizeRegistry",
    "QuantizeScheme",
    "TfmotQuantizeWrapper",
    "call_of",
    "first_call",
    "float32_variables",
    "in_xla",
    "inner_inputs",
    "is_functional",
    "is_symbolic",
    "keras",
    "output_variables",
    "serializable",
    "takes_training",
    "tfmot",
    "value_of",
    "weight_variables",
]

serializable = keras.utils.register_keras_serializable(package="satkeras")


@dataclasses.dataclass(frozen=True)
class LayerCall:
    """One call of a layer in a functional model.

    Attributes:
      layer: the layer.
      index: which of the layer's calls it is.
      inputs: the symbolic tensors among its arguments, in order; none for an InputLayer.
      args: its positional arguments, symbolic tensors and all else.
      kwargs: its keyword arguments.
      outputs: the symbolic tensors that it returns.
    """

    layer: Any
    index: int
    inputs: list
    args: tuple
    kwargs: dict
    outputs: list


def call_of(tensor) -> LayerCall:
    """The layer call that returned a symbolic tensor.

    Args:
      tensor: a KerasTensor of a functional model.
    """
    layer, index, _ = tensor._keras_history
    node = layer._inbound_nodes[index]
    inputs = [] if node.is_input else list(node.keras_inputs)
    return LayerCall(layer, index, inputs, tuple(node.call_args), dict(node.call_kwargs), tf.nest.flatten(node.outputs))


def is_symbolic(value) -> bool:
    """Whether a value is a KerasTensor."""
    return keras.backend.is_keras_tensor(value) if tf.is_tensor(value) else False


def inner_inputs(model, given) -> list:
    """What the inputs of a nested functional model get, in the model's order.

    Args:
      model: the nested model.
      given: the first argument of its call, in any structure that Keras takes.
    """
    return model._flatten_to_reference_inputs(given)


def takes_training(layer) -> bool:
    """Whether a layer's call has a `training` argument."""
    return "training" in layer._call_spec.arg_names


def arguments(cls: type, layer: type = keras.layers.Layer) -> set[str]:
    """The arguments of a layer class and of those that it passes them on to, up to the class of all layers."""
    names = {"name", "trainable", "dtype"}
    for base in cls.__mro__:
        if base is layer:
            break
        if "__init__" in vars(base):
            names |= set(inspect.signature(base.__init__).parameters)
    return names - {"self", "kwargs", "args"}


def adds_losses(layer) -> bool:
    """Whether a layer's call, or that of a layer inside it, adds losses or metrics to it."""
    return any(each._losses or each._metrics for each in layer._flatten_layers())


def is_functional(layer) -> bool:
    """Whether a layer is a model of Keras calls that can be read one by one: its `call` is Keras' own, and built."""
    own_call = type(layer).call in (Functional.call, keras.Sequential.call)
    return isinstance(layer, keras.Model) and own_call and bool(getattr(layer, "inputs", None))


def weight_variables(wrapper) -> Any:
    """`(latent weight, quantizer, quantizer variables)` of a QuantizeWrapper's one quantized weight, or None.

    `wrapper.layer.kernel` is no use: after a training step it holds a dead symbolic tensor.
    """
    return wrapper._weight_vars[0] if wrapper._weight_vars else None


def output_variables(wrapper) -> Any:
    """`(quantizer, quantizer variables)` of a QuantizeWrapper's output, or None."""
    if not wrapper._output_quantizers:
        return None
    return wrapper.quantize_config.quantizer, wrapper._output_quantizer_vars


def first_call(layer):
    """The node of a layer's first call in a functional model, None before there is one."""
    return layer._inbound_nodes[0] if layer is not None and layer._inbound_nodes else None


def value_of(variable) -> np.ndarray:
    """The value of a variable, of one that a distribution strategy mirrors, too, or of an array."""
    return np.asarray(tf.convert_to_tensor(variable))


def in_xla() -> bool:
    """Whether XLA compiles what is traced at the moment, as with `jit_compile=True`."""
    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def only_shapes_count() -> bool:
    """Whether Keras calls a layer in a graph that it throws away, to see the shape and dtype of what comes out.

    Rounding changes neither, and tracing it is half of the time that it takes to copy a model.
    """
    return getattr(tf.compat.v1.get_default_graph(), "name", "").endswith("_scratch_graph")


def float32_variables():
    """A context in which a mixed precision policy does not round the variables of the layer that is being called."""
    return autocast_variable.enable_auto_cast_variables(None)
