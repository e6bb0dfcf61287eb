"""The table of layers: what is supported, and what is refused."""

import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from satkeras.models.core import Clip, DepthToSpace, Slice, SpaceToDepth
from satkeras.models.graph import read_graph
from satkeras.models.layers import problem_of


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
        (layers.GaussianNoise(0.5), [IMAGE]),
        (layers.BatchNormalization(), [(5, 4)]),
        (layers.Conv2D(4, 3, activation="swish"), [IMAGE]),
        (layers.Conv2D(4, 3, activation=layers.LeakyReLU(0.1)), [IMAGE]),
        (layers.Conv2DTranspose(3, 3, 2), [IMAGE]),
        (layers.Activation("gelu"), [IMAGE]),
        (layers.Rescaling(0.5), [IMAGE]),
        (layers.LeakyReLU(0.1), [IMAGE]),
        (layers.PReLU(), [IMAGE]),
        (layers.ELU(), [IMAGE]),
        (layers.UnitNormalization(), [IMAGE]),
        (Clip(-1, 1), [IMAGE]),
        (layers.ReLU(6.0, negative_slope=0.5, threshold=1.0), [IMAGE]),
        (layers.Add(), [IMAGE, IMAGE, IMAGE]),
        (layers.Multiply(), [IMAGE, (1, 1, 4)]),
        (layers.Subtract(), [IMAGE, IMAGE]),
        (layers.Average(), [IMAGE, IMAGE]),
        (layers.Maximum(), [IMAGE, IMAGE]),
        (layers.Minimum(), [IMAGE, IMAGE]),
        (layers.Concatenate(axis=1), [IMAGE, IMAGE]),
        (layers.UpSampling2D(), [IMAGE]),
        (layers.UpSampling2D((2, 4), interpolation="bilinear"), [IMAGE]),
        (layers.Cropping2D(1), [IMAGE]),
        (layers.Permute((3, 1, 2)), [IMAGE]),
        (Slice((0, 0, 1), (8, 8, 3)), [IMAGE]),
        (DepthToSpace(2), [IMAGE]),
        (SpaceToDepth(2), [IMAGE]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_supported(layer, shapes):
    assert problem_of(last_node(layer, *shapes)) is None


@pytest.mark.parametrize(
    ("layer", "shapes", "problem"),
    [
        (layers.Conv2D(4, 3, groups=2), [IMAGE], "grouped convolutions"),
        (layers.Conv2D(4, 3, activation="relu", activity_regularizer="l2"), [IMAGE], "make the activation a layer"),
        (layers.DepthwiseConv2D(3, depth_multiplier=2), [IMAGE], "needs depth_multiplier=1"),
        (layers.Dense(3), [(5, 4)], r"needs inputs of shape \(batch, features\), gets rank 3; put a Flatten"),
        (layers.BatchNormalization(axis=1), [IMAGE], "needs axis=-1, has axis="),
        (layers.MaxPooling2D(data_format="channels_first"), [IMAGE], "needs data_format='channels_last'"),
        (layers.Softmax(axis=1), [IMAGE], "needs axis=-1, has axis=1"),
        (layers.Conv2D(4, 3, activation=tf.math.square), [IMAGE], "activation 'square' has no rule"),
        (layers.Conv2D(4, 3, activation=layers.LeakyReLU(2.0)), [IMAGE], "slope lies within 1/256 .. 1, has 2"),
        (layers.ReLU(negative_slope=1e-3), [IMAGE], "slope lies within 1/256 .. 1, has 0.001: use ReLU"),
        (layers.Add(), [IMAGE, (4,)], "needs two or more inputs of one rank"),
        (layers.BatchNormalization(), [(2, 2, 2, 4)], "needs inputs of rank 2 to 4, gets rank 5"),
        (layers.UpSampling2D(3, interpolation="bilinear"), [IMAGE], r"bilinear by \(3, 3\).*by 2, 4 or 8"),
        (layers.UpSampling2D(interpolation="bicubic"), [IMAGE], "use 'bilinear' or 'nearest'"),
        (layers.Conv2DTranspose(3, 2, 3), [IMAGE], r"kernel as large as its strides, has \(2, 2\) and \(3, 3\)"),
        (layers.Conv2DTranspose(3, 3, 2, output_padding=1), [IMAGE], "needs output_padding=None"),
        (layers.UnitNormalization(axis=1), [IMAGE], r"needs axis=-1, has axis="),
        (layers.UnitNormalization(), [(40_000,)], "at most 33025 values"),
        (layers.LayerNormalization(), [IMAGE], "no rule for this class"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_problems(layer, shapes, problem):
    with pytest.raises(AssertionError, match=problem):
        raise AssertionError(problem_of(last_node(layer, *shapes)))
