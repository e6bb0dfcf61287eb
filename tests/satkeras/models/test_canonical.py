"""How layers come apart: activations stand alone, sums are of two."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from satkeras.models.activations import hard_sigmoid, hard_swish
from satkeras.models.canonical import canonical, canonical_parts
from satkeras.models.graph import build_model, read_graph


@pytest.mark.parametrize(
    ("layer", "parts"),
    [
        (layers.Conv2D(4, 3, name="c"), [("Conv2D", "c")]),
        (layers.Conv2D(4, 3, activation="relu", name="c"), [("Conv2D", "c"), ("ReLU", "c_relu")]),
        (layers.Conv2D(4, 3, activation=tf.nn.relu6, name="c"), [("Conv2D", "c"), ("ReLU", "c_relu6")]),
        (layers.Conv2D(4, 3, activation=layers.ReLU(name="r"), name="c"), [("Conv2D", "c"), ("ReLU", "c_r")]),
        (layers.Activation(layers.ReLU(name="r"), name="a"), [("ReLU", "a")]),
        (layers.Dense(4, activation="softmax", name="d"), [("Dense", "d"), ("Softmax", "d_softmax")]),
        (layers.Activation("relu", name="a"), [("ReLU", "a")]),
        (layers.Activation("linear", name="a"), [("Activation", "a")]),
        (layers.Activation("tanh", name="a"), [("Tanh", "a")]),
        (layers.Activation("swish", name="a"), [("Sigmoid", "a_gate"), ("Multiply", "a")]),
        (layers.Activation("hard_sigmoid", name="a"), [("Rescaling", "a_scaled"), ("ReLU", "a")]),
        (layers.Dense(4, activation="elu", name="d"), [("Dense", "d"), ("Elementwise", "d_elu")]),
        (layers.ReLU(6.0, name="r"), [("ReLU", "r")]),
        (layers.ReLU(negative_slope=0.5, name="r"), [("GridLeakyReLU", "r")]),
        (layers.ReLU(threshold=0.5, name="r"), [("GeneralReLU", "r")]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_parts(layer, parts):
    fresh = [part.layer for part in canonical_parts(layer)]
    assert [(type(part).__name__, part.name) for part in fresh] == parts
    assert layer not in fresh
    assert not any(part.built for part in fresh)


@pytest.mark.parametrize(
    "activation",
    ["linear", "relu", "softmax", "sigmoid", "tanh", "swish", "hard_sigmoid", "elu", "gelu", "softplus"]
    + [tf.nn.relu6, hard_sigmoid, hard_swish, layers.ReLU(3.0), layers.ReLU(5.0, 0.25, 1.0), layers.LeakyReLU(0.25)],
)
@pytest.mark.parametrize("alone", [False, True])
def test_the_parts_compute_the_layer(activation, alone):
    image = tf_keras.Input((4,))
    layer = layers.Activation(activation) if alone else layers.Dense(5, activation=activation)
    model = tf_keras.Model(image, layer(image))
    graph, copies = canonical(read_graph(model))
    found = build_model(graph)
    for old, new in copies.items():
        new.set_weights(old.get_weights())
    x = np.random.default_rng(0).normal(0, 4, (3, 4)).astype(np.float32)
    np.testing.assert_allclose(found(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [layers.Add, layers.Multiply, layers.Average, layers.Maximum])
@pytest.mark.parametrize("count", [2, 4])
def test_merges_of_many_are_merges_of_two(kind, count):
    images = [tf_keras.Input((4,)) for _ in range(count)]
    graph, _ = canonical(read_graph(tf_keras.Model(images, kind(name="m")(images))))
    merges = [node for node in graph.nodes if len(node.inputs) > 1]
    assert kind is layers.Maximum or all(len(node.inputs) == 2 for node in merges)
    assert graph.outputs[0].name == "m"
    values = list(np.random.default_rng(0).normal(0, 4, (count, 3, 4)).astype(np.float32))
    np.testing.assert_allclose(build_model(graph)(values), kind()(values), rtol=1e-5)
