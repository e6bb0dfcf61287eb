"""What a Lambda layer computes: its function, followed on symbolic tensors."""

import inspect

import tensorflow as tf

from satkeras._compat import is_symbolic, keras


def traced(layer: keras.layers.Lambda, argument) -> keras.Model | None:
    """The TensorFlow operators that a Lambda's function calls, as a model.

    Args:
      layer: the Lambda.
      argument: what it is called on, symbolic tensors in any structure.

    Returns:
      A functional model; None where Keras cannot follow the function: it is no function of tensors alone.
    """
    inputs = tf.nest.map_structure(lambda x: keras.Input(x.shape[1:], dtype=x.dtype), argument)
    try:
        outputs = layer.function(inputs, **layer.arguments)
        if not all(map(is_symbolic, tf.nest.flatten(outputs))):
            return None
        return keras.Model(inputs, outputs)
    except Exception:  # a stranger's function may raise anything
        return None


def source_line(layer: keras.layers.Lambda) -> str:
    """Where a Lambda's function is written, and its first line; its name alone where Python cannot tell."""
    function = inspect.unwrap(layer.function)
    try:
        lines, number = inspect.getsourcelines(function)
        return f"{inspect.getsourcefile(function)}:{number}: {lines[0].strip()}"
    except (OSError, TypeError):
        return getattr(function, "__name__", repr(function))
