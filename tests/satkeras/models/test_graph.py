"""Models as lists of calls, and back."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

from satkeras.models.graph import build_model, read_graph


@pytest.fixture
def branched():
    inputs = tf_keras.Input((6, 6, 3), name="image")
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    once = shared(inputs)
    twice = shared(layers.ReLU(name="relu")(once))
    summed = layers.Add(name="sum")([twice, once])
    dropped = layers.Dropout(0.9, name="drop")(summed, training=True)
    return tf_keras.Model(inputs, [layers.Flatten(name="flat")(dropped), twice], name="branched")


def test_nodes_come_in_an_order_that_can_be_computed(branched):
    graph = read_graph(branched)
    names = [node.name for node in graph.nodes]
    assert sorted(names) == sorted(["image", "shared", "relu", "shared_1", "sum", "drop", "flat"])
    for node in graph.nodes:
        assert all(names.index(parent.name) < names.index(node.name) for parent in node.inputs)
    assert graph.name == "branched"
    assert [node.name for node in graph.inputs] == ["image"]
    assert [node.name for node in graph.outputs] == ["flat", "shared_1"]


def test_nodes_know_their_call(branched):
    nodes = {node.name: node for node in read_graph(branched).nodes}
    assert nodes["shared"].layer is nodes["shared_1"].layer
    assert [parent.name for parent in nodes["sum"].inputs] == ["shared_1", "shared"]
    assert nodes["drop"].training is True
    assert nodes["relu"].training is None
    assert nodes["flat"].shape == (6 * 6 * 3,)
    assert nodes["image"].inputs == ()


def test_consumers(branched):
    graph = read_graph(branched)
    nodes = {node.name: node for node in graph.nodes}
    assert {node.name for node in graph.consumers(nodes["shared"])} == {"relu", "sum"}
    assert graph.consumers(nodes["flat"]) == []
    inputs = tf_keras.Input((4,))
    doubled = read_graph(tf_keras.Model(inputs, layers.Add()([inputs, inputs])))
    assert len(doubled.consumers(doubled.inputs[0])) == 2


def test_only_what_leads_to_the_outputs_is_read():
    inputs = tf_keras.Input((4,))
    kept = layers.Dense(2, name="kept")(inputs)
    layers.Dense(2, name="left_out")(kept)
    assert "left_out" not in {node.name for node in read_graph(tf_keras.Model(inputs, kept)).nodes}


def test_a_rebuilt_model_computes_the_same(branched):
    rebuilt = build_model(read_graph(tf_keras.Model(branched.inputs, branched.get_layer("sum").output)))
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)
    expected = branched.get_layer("sum").output
    np.testing.assert_array_equal(rebuilt(x), tf_keras.Model(branched.inputs, expected)(x))
    assert rebuilt.get_layer("shared") is branched.get_layer("shared")


def test_a_call_keeps_its_training_argument(branched):
    x = np.ones((1, 6, 6, 3), np.float32)
    flat, _ = build_model(read_graph(branched))(x, training=False)
    assert (flat.numpy() == 0).mean() > 0.5


def test_wrap_is_applied_once_to_every_layer(branched):
    wrapped = []
    build_model(read_graph(branched), wrap=lambda layer: wrapped.append(layer.name) or layer)
    assert sorted(wrapped) == sorted(["shared", "relu", "sum", "drop", "flat"])
