"""Models inside models: read as their own calls, quantized, stripped and stored."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

from satkeras import load_model, quantize_model, strip
from satkeras.models.graph import read_graph


@pytest.fixture(scope="module")
def nested():
    base = tf_keras.Sequential(
        [
            layers.InputLayer((8, 8, 3)),
            layers.Conv2D(4, 3, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.5, name="drop"),
        ],
        name="base",
    )
    middle = tf_keras.Sequential([base, layers.ReLU(name="relu")], name="middle")
    inputs = tf_keras.Input((8, 8, 3), name="image")
    once, twice = middle(inputs, training=False), base(layers.Conv2D(3, 1, name="first")(inputs))
    pooled = layers.GlobalAveragePooling2D(name="pool")(layers.Add(name="sum")([once, twice]))
    return tf_keras.Model(inputs, layers.Dense(5, name="logits")(pooled), name="outer")


def test_names_and_training_arguments(nested):
    nodes = {node.name: node for node in read_graph(nested).nodes}
    first, second = nodes["middle/base/norm"], nodes["middle/base/norm_1"]
    assert first.layer is second.layer
    assert (first.training, nodes["middle/base/drop"].training) == (False, False)
    assert (second.training, nodes["middle/base/drop_1"].training) == (None, None)
    assert nodes["middle/relu"].training is None  # takes no such argument
    assert [parent.name for parent in nodes["sum"].inputs] == ["middle/relu", "middle/base/drop_1"]


def test_quantized_stripped_and_stored(nested, images, train, tmp_path):
    x, _ = images
    quantized = quantize_model(nested, weight_bits=8, activation_bits=8)
    assert "quant_middle/base/conv" in {layer.name for layer in quantized.layers}
    statistics = quantized.get_layer("middle/base/norm").moving_mean.numpy()
    train(quantized)
    # The frozen call and the free one share the layer; the free one moves its statistics.
    assert np.any(quantized.get_layer("middle/base/norm").moving_mean.numpy() != statistics)
    for suffix in (".keras", ".h5"):
        quantized.save(tmp_path / f"model{suffix}")
        loaded = load_model(tmp_path / f"model{suffix}")
        np.testing.assert_array_equal(loaded.predict(x, verbose=0), quantized.predict(x, verbose=0))


def test_stripped(nested, images):
    x, _ = images
    np.testing.assert_allclose(strip(quantize_model(nested, "int8"))(x), nested(x), rtol=1e-4, atol=1e-4)


def test_inputs_and_outputs_in_any_structure():
    inputs = {"a": tf_keras.Input((4,), name="a"), "b": tf_keras.Input((4,), name="b")}
    inner = tf_keras.Model(inputs, [layers.Add(name="add")(list(inputs.values())), inputs["a"]], name="inner")
    x, y = tf_keras.Input((4,)), tf_keras.Input((4,))
    total, same = inner({"b": y, "a": x})
    graph = read_graph(tf_keras.Model([x, y], [layers.Dense(2)(total), layers.Dense(2)(same)]))
    assert [node.inputs[0].name for node in graph.outputs] == ["inner/add", graph.inputs[0].name]
