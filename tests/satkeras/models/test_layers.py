"""The table of layers: what is supported, and how layers with activations come apart."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from satkeras.models.graph import read_graph
from satkeras.models.layers import canonical_layers, problem_of


def last_node(layer, *shapes):
    inputs = [tf_keras.Input(shape) for shape in shapes]
    return read_graph(tf_keras.Model(inputs, layer(inputs[0] if len(inputs) == 1 else inputs))).outputs[0]


IMAGE = (8, 8, 4)


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [
        (layers.Conv2D(4, 3, strides=2, dilation_rate=1, activation="relu"), [IMAGE]),
        (layers.DepthwiseConv2D(3, use_bias=False), [IMAGE]),
        (layers.Dense(3, activation="softmax"), [(4,)]),
        (layers.BatchNormalization(), [IMAGE]),
        (layers.BatchNormalization(axis=3), [IMAGE]),
        (layers.BatchNormalization(), [(4,)]),
        (layers.ReLU(6.0), [IMAGE]),
        (layers.Activation("relu"), [IMAGE]),
        (layers.Activation(tf.nn.relu6), [IMAGE]),
        (layers.Conv2D(4, 3, activation=layers.ReLU(6.0)), [IMAGE]),
        (layers.Softmax(), [(4,)]),
        (layers.Add(), [IMAGE, IMAGE]),
        (layers.AveragePooling2D(), [IMAGE]),
        (layers.AveragePooling2D(padding="same"), [IMAGE]),
        (layers.GlobalAveragePooling2D(), [IMAGE]),
        (layers.MaxPooling2D(padding="same"), [IMAGE]),
        (layers.GlobalMaxPooling2D(), [IMAGE]),
        (layers.ZeroPadding2D(), [IMAGE]),
        (layers.Flatten(), [IMAGE]),
        (layers.Reshape((2, 2)), [(4,)]),
        (layers.Dropout(0.5), [(4,)]),
        (layers.SpatialDropout2D(0.5), [IMAGE]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_supported(layer, shapes):
    assert problem_of(last_node(layer, *shapes)) is None


@pytest.mark.parametrize(
    ("layer", "shapes", "problem"),
    [
        (layers.Conv2D(4, 3, groups=2), [IMAGE], "grouped convolutions"),
        (layers.Conv2D(4, 3, activation="swish"), [IMAGE], "activation 'swish' has no rule"),
        (layers.Activation("gelu"), [IMAGE], "activation 'gelu' has no rule"),
        (layers.Conv2D(4, 3, activation=layers.LeakyReLU(name="leaky")), [IMAGE], "activation 'leaky' has no rule"),
        (layers.Dense(3, activation=layers.ReLU(threshold=1.0)), [(4,)], "needs negative_slope=0 and threshold=0"),
        (layers.Conv2D(4, 3, activation="relu", activity_regularizer="l2"), [IMAGE], "make the activation a layer"),
        (layers.DepthwiseConv2D(3, depth_multiplier=2), [IMAGE], "needs depth_multiplier=1"),
        (layers.Dense(3), [(5, 4)], r"needs inputs of shape \(batch, features\), gets rank 3; put a Flatten"),
        (layers.BatchNormalization(axis=1), [IMAGE], "needs axis=-1, has axis="),
        (layers.BatchNormalization(), [(5, 4)], "needs inputs of rank 2 or 4, gets rank 3"),
        (layers.ReLU(negative_slope=0.5), [IMAGE], "needs negative_slope=0 and threshold=0, has 0.5 and 0.0"),
        (layers.Add(), [IMAGE, IMAGE, IMAGE], "needs two inputs of one shape"),
        (layers.Add(), [IMAGE, (1, 1, 4)], "needs two inputs of one shape"),
        (layers.MaxPooling2D(data_format="channels_first"), [IMAGE], "needs data_format='channels_last'"),
        (layers.Softmax(axis=1), [IMAGE], "needs axis=-1, has axis=1"),
        (layers.LeakyReLU(), [IMAGE], "no rule for this class"),
        (layers.Conv2DTranspose(3, 2), [IMAGE], "no rule for this class"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_problems(layer, shapes, problem):
    with pytest.raises(AssertionError, match=problem):
        raise AssertionError(problem_of(last_node(layer, *shapes)))


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
        (layers.ReLU(6.0, name="r"), [("ReLU", "r")]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_canonical_layers(layer, parts):
    fresh = canonical_layers(layer)
    assert [(type(part).__name__, part.name) for part in fresh] == parts
    assert layer not in fresh
    assert not any(part.built for part in fresh)


@pytest.mark.parametrize("activation", ["linear", "relu", "softmax", tf.nn.relu6, layers.ReLU(3.0)])
def test_canonical_layers_compute_the_layer(activation):
    layer = layers.Dense(5, activation=activation)
    x = np.random.default_rng(0).normal(0, 10, (3, 4)).astype(np.float32)
    expected = layer(x)
    fresh = tf_keras.Sequential(canonical_layers(layer))
    fresh.build((None, 4))
    fresh.layers[0].set_weights(layer.get_weights())
    np.testing.assert_allclose(fresh(x), expected, rtol=1e-6)
