"""The rewrites of the graph, each on its own."""

import pytest
import tf_keras
from tf_keras import layers

from satkeras import quantize_model, strip
from satkeras.models.canonical import canonical
from satkeras.models.graph import build_model, read_graph
from satkeras.models.insertion import has_quantizer, quantizes_tensor, with_quantizers, without_quantizers
from satkeras.models.placement import Placement
from satkeras.models.relus import AbsorbedReLU, MaskedReLU
from satkeras.quantizers import MovingRangeQuantizer, PACTQuantizer


def edges(graph):
    return {node.name: [parent.name for parent in node.inputs] for node in graph.nodes}


@pytest.fixture
def graph():
    inputs = tf_keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(3, 3, padding="same", activation="relu", name="conv")(inputs)
    x = layers.Add(name="add")([x, inputs])
    return read_graph(tf_keras.Model(inputs, layers.Activation("relu", name="end")(x), name="model"))


def test_canonical(graph):
    fresh, heirs = canonical(graph)
    assert edges(fresh) == {
        "image": [],
        "conv": ["image"],
        "conv_relu": ["conv"],
        "add": ["conv_relu", "image"],
        "end": ["add"],
    }
    assert not {node.layer for node in fresh.nodes} & {node.layer for node in graph.nodes}
    assert [node.name for node in fresh.outputs] == ["end"]
    assert {old.name: new.name for old, new in heirs.items()} == {name: name for name in ("conv", "add", "end")}


def test_canonical_keeps_a_shared_layer_one_layer():
    inputs = tf_keras.Input((4,), name="image")
    shared = layers.Dense(4, activation="relu", name="shared")
    fresh, _ = canonical(read_graph(tf_keras.Model(inputs, shared(shared(inputs)))))
    nodes = {node.name: node for node in fresh.nodes}
    assert list(nodes) == ["image", "shared", "shared_relu", "shared_1", "shared_1_relu"]
    assert nodes["shared"].layer is nodes["shared_1"].layer
    assert nodes["shared_relu"].layer is nodes["shared_1_relu"].layer


def test_with_quantizers(graph):
    fresh, _ = canonical(graph)
    nodes = {node.name: node for node in fresh.nodes}
    stream, branch = MovingRangeQuantizer(8), PACTQuantizer(4)
    tensors = {nodes["image"]: stream, nodes["end"]: stream}
    placed, configs = with_quantizers(fresh, Placement({}, tensors, {nodes["conv"]: branch}))
    assert edges(placed) == {
        "image": [],
        "image_output": ["image"],
        "conv_input": ["image_output"],
        "conv": ["conv_input"],
        "conv_relu": ["conv"],
        "add": ["conv_relu", "image_output"],
        "end": ["add"],
        "end_output": ["end"],
    }
    found = {layer.name: config.quantizer for layer, config in configs.items()}
    assert found == {"image_output": stream, "conv_input": branch, "end_output": stream}
    assert [node.name for node in placed.inputs] == ["image"]
    assert [node.name for node in placed.outputs] == ["end_output"]
    build_model(placed)


def test_without_quantizers_is_the_inverse(graph):
    fresh, _ = canonical(graph)
    inside, heirs = without_quantizers(read_graph(quantize_model(build_model(fresh))))
    assert edges(inside) == edges(fresh)
    assert {heir.name for heir in heirs.values()} == {"conv", "conv_relu", "add", "end"}
    assert not any(has_quantizer(node.layer) for node in inside.nodes)


def test_which_layers_quantize(graph):
    model = quantize_model(build_model(graph))
    quantize = {layer.name for layer in model.layers if has_quantizer(layer)}
    tensors = {layer.name for layer in model.layers if quantizes_tensor(layer)}
    assert quantize - tensors == {"quant_conv"}
    assert tensors == {name for name in quantize if name.endswith(("_output", "_input"))} != set()


def test_a_shared_relu6_that_a_learned_clip_bounds_in_one_call():
    inputs = tf_keras.Input((8, 8, 3))
    relu = layers.ReLU(6.0, name="relu")
    clipped = relu(layers.Conv2D(4, 1)(inputs))
    stream = relu(layers.Conv2D(4, 1)(clipped))
    x = layers.Conv2D(4, 1)(layers.Add()([stream, layers.Conv2D(4, 1)(stream)]))
    model = tf_keras.Model(inputs, x)
    nodes = {node.layer.name: node for node in read_graph(quantize_model(model)).nodes}
    assert type(nodes["quant_relu_output"].inputs[0].layer) is AbsorbedReLU
    assert type(nodes["quant_relu_1_output"].inputs[0].layer) is MaskedReLU


def second_call_named_like_a_layer():
    """Keras itself names the second ReLU of a model re_lu_1."""
    inputs = tf_keras.Input((4,))
    shared = layers.ReLU(name="re_lu")
    x = shared(layers.Dense(4, name="b")(shared(layers.Dense(4, name="a")(inputs))))
    x = layers.ReLU(name="re_lu_1")(layers.Dense(4, name="c")(x))
    return tf_keras.Model(inputs, layers.Dense(4, name="d")(x))


def layer_named_like_an_output():
    inputs = tf_keras.Input((4,))
    return tf_keras.Model(inputs, layers.Dense(3, name="fc_output")(layers.Dense(4, name="fc")(inputs)))


@pytest.mark.parametrize("build", [second_call_named_like_a_layer, layer_named_like_an_output])
def test_names_that_collide_with_those_of_quantizers(build):
    model = build()
    # A layer that is called twice comes back as two.
    assert {layer.name for layer in strip(quantize_model(model)).layers} >= {layer.name for layer in model.layers}
