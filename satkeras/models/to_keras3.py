"""A float tf_keras model as a model of Keras 3."""

import tensorflow as tf

from satkeras._compat import arguments, keras
from satkeras.models.core import DepthToSpace, Slice, SpaceToDepth
from satkeras.models.graph import Node, read_graph
from satkeras.models.insertion import has_quantizer
from satkeras.models.layers import float_class


def to_keras3(model: keras.Model):
    """The same model in Keras 3, with its weights: `to_keras3(strip(q))`.

    Args:
      model: a float functional or Sequential tf_keras model, such as `strip` returns.

    Returns:
      A functional `keras.Model`.

    Raises:
      TypeError: not a tf_keras model; ValueError: a quantized model, or a layer that Keras 3 has not.
    """
    import keras as keras3  # noqa: PLC0415 - only who asks for Keras 3 needs it

    if not isinstance(model, keras.Model):
        raise TypeError(f"to_keras3 needs a tf_keras model. Received: model={model!r}")
    if any(has_quantizer(layer) for layer in model.layers):
        raise ValueError(
            f"to_keras3 needs a float model. Received: {model.name!r}, which has quantizers: to_keras3(strip(model))"
        )
    graph, made, values = read_graph(model), {}, {}
    for node in graph.nodes:
        if not node.inputs:
            values[node] = keras3.Input(node.shape, name=node.name, dtype=node.tensor.dtype.name)
            continue
        inputs = [values[parent] for parent in node.inputs]
        if node.layer not in made:
            made[node.layer] = _layer(node, keras3)
        training = {} if node.training is None else {"training": node.training}
        values[node] = made[node.layer](inputs[0] if len(inputs) == 1 else inputs, **training)
    ends = ([values[node] for node in nodes] for nodes in (graph.inputs, graph.outputs))
    structures = zip((model.input, model.output), ends, strict=True)
    inputs, outputs = (tf.nest.pack_sequence_as(like, end) for like, end in structures)
    result = keras3.Model(inputs, outputs, name=model.name)
    for layer, copy in made.items():
        if hasattr(copy, "set_weights"):
            copy.set_weights(layer.get_weights())
    return result


def _layer(node: Node, keras3):
    layer, ops = node.layer, keras3.ops
    if isinstance(layer, Slice):
        return lambda x, **_: x[(slice(None), *map(slice, layer.begin, layer.end, layer.strides))]
    if isinstance(layer, DepthToSpace):
        return lambda x, **_: _depth_to_space(ops, x, layer.block_size)
    if isinstance(layer, SpaceToDepth):
        return lambda x, **_: _space_to_depth(ops, x, layer.block_size)
    cls = getattr(keras3.layers, float_class(layer).__name__, None)
    if isinstance(layer, keras.layers.Activation):
        return keras3.layers.Activation(_activation(node), name=_name(node), dtype=layer.dtype_policy.name)
    if cls is None:
        raise ValueError(f"Keras 3 has no layer for {node.name!r} ({type(layer).__name__})")
    taken = arguments(cls, keras3.layers.Layer)
    config = {
        key: value
        for key, value in layer.get_config().items()
        if key in taken and not key.endswith(("_initializer", "_regularizer", "_constraint"))
    }
    config |= {"name": _name(node), "dtype": layer.dtype_policy.name}
    if hasattr(layer, "activation"):
        config["activation"] = _activation(node)
    if isinstance(layer, keras.layers.LeakyReLU):
        config["negative_slope"] = float(layer.alpha)
    if isinstance(layer, keras.layers.BatchNormalization):
        config["axis"] = list(layer.axis)[0]
    return cls(**config)


def _activation(node: Node) -> str:
    name = getattr(node.layer.activation, "__name__", "")
    if type(node.layer.activation) is keras.layers.ReLU:
        config = node.layer.activation.get_config()
        name = {(0.0, None): "relu", (0.0, 6.0): "relu6"}.get(
            (float(config["negative_slope"]), config["max_value"]), ""
        )
    if not name:
        raise ValueError(f"Keras 3 has no name for the activation of {node.name!r}: make it a layer")
    return name


def _name(node: Node) -> str:
    return node.layer.name.replace("/", "_")


def _depth_to_space(ops, x, block: int):
    _, height, width, channels = x.shape
    x = ops.reshape(x, (-1, height, width, block, block, channels // block**2))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, height * block, width * block, channels // block**2))


def _space_to_depth(ops, x, block: int):
    _, height, width, channels = x.shape
    x = ops.reshape(x, (-1, height // block, block, width // block, block, channels))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, height // block, width // block, channels * block**2))
