"""What a user's own code computes: Python functions, followed on symbolic tensors."""

import functools
import inspect
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from satkeras._compat import adds_losses, arguments, call_of, is_functional, is_symbolic, keras, takes_training
from satkeras.models.activations import steps_of

_KNOWN = ("tf_keras", "satkeras", "tensorflow_model_optimization")  # packages whose classes have rows
# What a class may define anew without doing something else in training.
_SAME_IN_TRAINING = ("build", "compute_output_shape", "from_config", "get_config")
# What a model of a class of its own would lose.
_STEPS = ("compile", "compute_loss", "compute_metrics", "fit", "predict_step", "test_step", "train_step")


def function_of(layer: keras.layers.Layer) -> Callable | None:
    """The function of tensors that stands for a layer: a Lambda's, or the `call` of a class that is not Keras'.

    None for any other layer, and for one with weights of its own: nothing but its call knows what they do. The layers
    that it calls may have weights. None, too, where its call adds losses, which another call would add once more.
    """
    if isinstance(layer, keras.layers.Lambda):
        return functools.partial(layer.function, **layer.arguments)
    if type(layer) is keras.layers.TimeDistributed:
        return functools.partial(_at_each_time, layer.layer)
    if class_of(layer).__module__.split(".")[0] in _KNOWN or _has_own_weights(layer) or adds_losses(layer):
        return None
    if not takes_training(layer):
        return _in_python(layer.call)
    return functools.partial(_in_either_mode, _in_python(layer.call))


def class_of(layer, *packages: str) -> type:
    """The class of Keras' whose `call` a layer of a user's class inherits; of any other layer its own class."""
    packages = packages or _KNOWN
    of_keras = next(cls for cls in type(layer).__mro__ if cls.__module__.split(".")[0] in packages)
    return of_keras if type(layer).call is of_keras.call else type(layer)


def require_same_in_training(layer, cls: type) -> None:
    """Raises where a layer may do something in training that the class does not, which no comparison shows.

    Args:
      layer: of a class that inherits its `call` from `cls`.
      cls: a class of either Keras.

    Raises:
      ValueError: it defines more than its arguments and shapes anew.
    """
    classes = type(layer).__mro__
    own = {name for each in classes[: classes.index(cls)] for name in vars(each) if not name.startswith("__")}
    own -= set(_SAME_IN_TRAINING)
    if own and "training" in inspect.signature(cls.call).parameters:
        raise ValueError(
            f"{type(layer).__name__} is no {cls.__name__}: it has its own {', '.join(sorted(own))}; use {cls.__name__}"
        )


def of_keras_class(layer: keras.layers.Layer, input_shapes: list[tuple]) -> keras.layers.Layer:
    """A copy of a layer, weights included, of the class of Keras' that its own inherits its `call` from.

    Args:
      layer: of a user's class.
      input_shapes: of a call of it, without the batch's axis.

    Raises:
      ValueError: it computes something else.
    """
    cls = class_of(layer)
    require_same_in_training(layer, cls)
    taken = arguments(cls)
    config = {name: value for name, value in _linear_config(layer).items() if name in taken}
    copy = cls(**{**config, **({"activation": layer.activation} if "activation" in config else {})})
    rng = np.random.default_rng(0)
    values = [rng.normal(size=[2, *(size or 8 for size in shape)]).astype(np.float32) for shape in input_shapes]
    values = values[0] if len(values) == 1 else values
    copy(values)
    copy.set_weights(layer.get_weights())
    for one, other in zip(*(tf.nest.flatten(each(values)) for each in (copy, layer)), strict=True):
        if not np.allclose(one, other, rtol=1e-5, atol=1e-6):  # the same operators in float32
            raise ValueError(
                f"{type(layer).__name__} has the call of {cls.__name__}, but computes something else; use layers of "
                "Keras', or run it behind the file"
            )
    return copy


def functional(model, input_shape: tuple[int, ...] | None):
    """A subclassed model of one input as the functional one that its `call` makes; anything else as it is.

    Args:
      model: anything.
      input_shape: of the input without the batch's axis; the one that the model was built for by default.
    """
    if not isinstance(model, keras.Model) or is_functional(model) or isinstance(model, keras.Sequential):
        return model
    shape = getattr(model, "_build_input_shape", None) if input_shape is None else (None, *input_shape)
    is_open = model.built and isinstance(shape, (tuple, tf.TensorShape)) and not has_own_steps(model, keras.Model)
    function = function_of(model) if is_open else None
    result = followed(function, keras.Input(shape[1:])) if function else None
    return model if result is None else keras.Model(result.inputs, result.outputs, name=model.name)


def has_own_steps(model, of_keras: type) -> bool:
    """Whether a model's class trains otherwise than Keras' own.

    Args:
      model: a model.
      of_keras: the Model class of its Keras.
    """
    return any(getattr(type(model), name) is not getattr(of_keras, name) for name in _STEPS if hasattr(of_keras, name))


def followed(function: Callable, *arguments) -> keras.Model | None:
    """The layers and TensorFlow operators that a function calls, as a model.

    Args:
      function: of tensors.
      arguments: what it is called on, symbolic tensors in any structure.

    Returns:
      A functional model; None where Keras cannot follow the function: it is no function of tensors alone.
    """
    inputs = tf.nest.map_structure(
        lambda x: keras.Input(x.shape[1:], dtype=x.dtype) if is_symbolic(x) else x, arguments
    )
    try:
        outputs = _in_python(function)(*inputs)
        if not all(map(is_symbolic, tf.nest.flatten(outputs))):
            return None
        return keras.Model(inputs[0] if len(inputs) == 1 else inputs, outputs)
    except Exception:  # a stranger's function may raise anything
        return None


def has_own_activation(layer: keras.layers.Layer) -> bool:
    """Whether the activation of one of Keras' layers is a function of the user's, or one of TensorFlow's."""
    activation = getattr(layer, "activation", None)
    return activation is not None and type(layer).__module__.startswith("tf_keras.") and steps_of(activation) is None


def without_activation(layer: keras.layers.Layer, input_shape: tuple) -> keras.layers.Layer:
    """A copy of a layer, weights included, with a linear activation.

    Args:
      layer: built.
      input_shape: of a call of it, without the batch's axis.
    """
    copy = type(layer).from_config(_linear_config(layer))
    copy.build((None, *input_shape))
    its_own = {id(weight) for weight in getattr(layer.activation, "weights", ())}
    copy.set_weights([weight.numpy() for weight in layer.weights if id(weight) not in its_own])
    return copy


def _linear_config(layer: keras.layers.Layer) -> dict:
    """The config of a layer with a linear activation: its own may have none."""
    if not hasattr(layer, "activation"):
        return layer.get_config()
    activation, layer.activation = layer.activation, keras.activations.linear
    try:
        return layer.get_config()
    finally:
        layer.activation = activation


def source_line(function: Callable) -> str:
    """Where a function is written, and its first line; its name alone where Python cannot tell."""
    function = inspect.unwrap(function)
    try:
        lines, number = inspect.getsourcelines(function)
        return f"{inspect.getsourcefile(function)}:{number}: {lines[0].strip()}"
    except (OSError, TypeError):
        return getattr(function, "__name__", repr(function))


def _in_python(function: Callable) -> Callable:
    """What a `tf.function` was made of; any other function itself."""
    return getattr(function, "python_function", function)


def _has_own_weights(layer: keras.layers.Layer) -> bool:
    inner = {id(weight) for module in layer.submodules for weight in getattr(module, "weights", ())}
    return any(id(weight) not in inner for weight in layer.weights)


def _at_each_time(layer: keras.layers.Layer, x):
    """`TimeDistributed(layer)`: one call for each step in time; a Dense layer takes all at once."""
    if isinstance(layer, keras.layers.Dense):
        return layer(x)
    return tf.stack([layer(x[:, time]) for time in range(x.shape[1])], axis=1)


def _in_either_mode(call: Callable, *inputs):
    """What a `call` with a `training` argument computes in both modes.

    Raises:
      ValueError: other operators in training than at inference; a Dropout that is given the argument is one.
    """
    results = [call(*inputs, training=mode) for mode in (True, None)]
    in_training, at_inference = (list(map(_signature, keras.Model(inputs, result).layers)) for result in results)
    if in_training != at_inference:
        raise ValueError("its call does something else in training")
    return results[-1]


def _signature(layer: keras.layers.Layer) -> tuple:
    """A layer's class, and of an operator its name and the numbers that it is called with."""
    if not hasattr(layer, "symbol"):
        return (type(layer),)
    call = call_of(tf.nest.flatten(layer.output)[0])
    numbers = tf.nest.map_structure(lambda x: None if is_symbolic(x) else repr(x), (call.args, call.kwargs))
    return type(layer), layer.symbol, numbers
