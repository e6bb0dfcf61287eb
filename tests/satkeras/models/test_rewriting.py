"""Every rewrite computes what the layer computed, in core layers alone."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from satkeras import check_model, quantize_model, strip
from satkeras._compat import CustomScaleLayer
from satkeras.models.rewriting import core_model

IMAGE, SEQUENCE, VOLUME = (8, 6, 4), (12, 4), (4, 6, 5, 2)


def normalization():
    return layers.Normalization(mean=[1.0, 2.0, 3.0, 4.0], variance=[4.0, 1.0, 9.0, 0.5])


LAYERS = {
    "separable": (IMAGE, layers.SeparableConv2D(5, 3, depth_multiplier=2, activation="relu"), "DepthwiseConv2D"),
    "groups": (IMAGE, layers.Conv2D(6, 3, groups=2, strides=2, padding="same", activation="relu"), "Slice"),
    "multiplier": (IMAGE, layers.DepthwiseConv2D(3, depth_multiplier=3, padding="same"), "UpSampling2D"),
    "multiplier of one channel": ((8, 6, 1), layers.DepthwiseConv2D(3, depth_multiplier=3), "Conv2D"),
    "dense on images": (IMAGE, layers.Dense(3, activation="relu"), "Conv2D"),
    "dense on sequences": (SEQUENCE, layers.Dense(3), "Conv2D"),
    "conv1d": (SEQUENCE, layers.Conv1D(5, 3, strides=2, padding="same", activation="relu"), "Conv2D"),
    "conv1d causal": (SEQUENCE, layers.Conv1D(4, 3, dilation_rate=2, padding="causal"), "ZeroPadding2D"),
    "conv1d groups": (SEQUENCE, layers.Conv1D(4, 3, groups=2), "Concatenate"),
    "separable 1d": (SEQUENCE, layers.SeparableConv1D(5, 3, strides=2, padding="same"), "DepthwiseConv2D"),
    "depthwise 1d": (SEQUENCE, layers.DepthwiseConv1D(3, strides=2), "DepthwiseConv2D"),
    "max 1d": (SEQUENCE, layers.MaxPooling1D(3, 2, padding="same"), "MaxPooling2D"),
    "average 1d": (SEQUENCE, layers.AveragePooling1D(2), "AveragePooling2D"),
    "global 1d": (SEQUENCE, layers.GlobalAveragePooling1D(), "GlobalAveragePooling2D"),
    "global 1d, kept": (SEQUENCE, layers.GlobalMaxPooling1D(keepdims=True), "GlobalMaxPooling2D"),
    "padding 1d": (SEQUENCE, layers.ZeroPadding1D((1, 2)), "ZeroPadding2D"),
    "cropping 1d": (SEQUENCE, layers.Cropping1D((1, 2)), "Cropping2D"),
    "upsampling 1d": (SEQUENCE, layers.UpSampling1D(2), "UpSampling2D"),
    "repeated": ((4,), layers.RepeatVector(3), "UpSampling2D"),
    "max 3d": (VOLUME, layers.MaxPooling3D((2, 3, 2), (1, 2, 2), "same"), "MaxPooling2D"),
    "average 3d": (VOLUME, layers.AveragePooling3D((2, 3, 2), (1, 2, 2), "same"), "AveragePooling2D"),
    "global 3d": (VOLUME, layers.GlobalAveragePooling3D(), "GlobalAveragePooling2D"),
    "global 3d, kept": (VOLUME, layers.GlobalMaxPooling3D(keepdims=True), "GlobalMaxPooling2D"),
    "padding 3d": (VOLUME, layers.ZeroPadding3D(((1, 2), (0, 1), (2, 0))), "ZeroPadding2D"),
    "cropping 3d": (VOLUME, layers.Cropping3D(((1, 2), (0, 1), (2, 0))), "Cropping2D"),
    "upsampling 3d": (VOLUME, layers.UpSampling3D((1, 2, 3)), "UpSampling2D"),
    "norm 1d": (SEQUENCE, layers.BatchNormalization(), "BatchNormalization"),
    "normalization": (IMAGE, normalization(), "BatchNormalization"),
    "rescaling": (IMAGE, layers.Rescaling(1 / 127.5, -1), "Rescaling"),
}
KERNEL = np.random.default_rng(3).normal(size=(3, 2, 4, 5)).astype(np.float32)
MASK = np.random.default_rng(4).integers(0, 2, (8, 6, 1)).astype(np.float32)
SQUARE = np.float32([[1, 2], [3, -4]])
OPERATORS = {
    "sum": lambda x: x + 2 * x - 1.0,
    "constants": lambda x: (3.0 - x) / 2.0 + tf.constant([1.0, 2.0, 3.0, 4.0]),
    "tensors": lambda x: tf.maximum(x, -x) * x - tf.minimum(x, tf.square(x)),
    "activations": lambda x: tf.nn.relu6(x) + tf.nn.leaky_relu(x, 0.1) + tf.nn.sigmoid(x) + tf.tanh(x),
    "softmax": lambda x: tf.nn.softmax(tf.nn.silu(x)),
    "constants of places": lambda x: x * MASK + np.arange(192, dtype=np.float32).reshape(8, 6, 4) - MASK[:, :1],
    "constants of a sequence": lambda x: tf.reduce_max(x, 1) - np.arange(24, dtype=np.float32).reshape(1, 6, 4),
    "clip": lambda x: tf.clip_by_value(x, 0.0, 3.0),
    "clips": lambda x: tf.clip_by_value(x, -1.0, 2.0) + tf.maximum(x, -0.5) * tf.minimum(3.0, x),
    "functions": lambda x: tf.exp(x) + tf.nn.selu(x) * tf.nn.softplus(x) - tf.nn.softsign(x),
    "unit": lambda x: tf.nn.l2_normalize(x, -1) + x**2,
    "slice": lambda x: tf.slice(x, [0, 1, 0, 1], [-1, 3, -1, 2]),
    "bilinear": lambda x: tf.image.resize(x, (16, 12)),
    "split": lambda x: tf.concat(tf.split(x, [1, 3], axis=-1)[::-1], -1),
    "unstack": lambda x: tf.stack(tf.unstack(x, axis=1)[:2], axis=1),
    "slices": lambda x: x[:, 1:, ::2, :2],
    "tile": lambda x: tf.tile(x, [1, 2, 1, 3]),
    "repeat": lambda x: tf.repeat(x, 2, axis=-1) + tf.repeat(x, 2, axis=3),
    "repeat rows": lambda x: tf.repeat(x, 3, axis=1),
    "gather": lambda x: tf.gather(x, [2, 0, 1, 1], axis=-1) + x,
    "gather one": lambda x: tf.gather(x, 1, axis=1),
    "absolute": lambda x: tf.abs(x) - 1.0,
    "turned": lambda x: tf.reverse(x, [2])[..., ::-1],
    "axes": lambda x: tf.squeeze(tf.expand_dims(x, 1)[:, 0, 2:3], 1),
    "reshape": lambda x: tf.reshape(x, [tf.shape(x)[0], -1, 4]),
    "transpose": lambda x: tf.transpose(x, (0, 2, 1, 3)),
    "pad": lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 1], [0, 0]]),
    "means": lambda x: tf.reduce_mean(x, [1, 2]) + tf.reduce_max(x, [1, 2]),
    "mean of rows": lambda x: tf.reduce_mean(x, 1),
    "over channels": lambda x: tf.reduce_mean(x, -1, keepdims=True) + tf.reduce_max(x, [3], keepdims=True),
    "over all but rows": lambda x: tf.reduce_max(x, [2, 3]) - tf.reduce_mean(x, [2, 3]),
    "over everything": lambda x: tf.reduce_mean(x, [1, 2, 3], keepdims=True),
    "sums": lambda x: tf.reduce_sum(x, [1, 2]) * tf.reduce_sum(tf.reduce_mean(x, 2), 1),
    "of numbers": lambda x: tf.reduce_mean(x, [1, 2]) - tf.reduce_mean(tf.reduce_mean(x, [1, 2]), 1, keepdims=True),
    "pad anywhere": lambda x: tf.pad(x, [[0, 0], [1, 0], [0, 2], [3, 1]]) + tf.pad(x, [[0, 0], [0, 1], [2, 0], [0, 4]]),
    "pad a sequence": lambda x: tf.pad(tf.reduce_mean(x, 2), [[0, 0], [2, 1], [0, 1]]),
    "mirrored": lambda x: tf.pad(x, [[0, 0], [1, 2], [2, 0], [0, 1]], "REFLECT") * 2.0,
    "mirrored with the border": lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 3], [0, 0]], mode="symmetric"),
    "images": lambda x: (
        tf.image.flip_left_right(tf.image.flip_up_down(x)) + tf.image.grayscale_to_rgb(x[..., :1])[..., 1:2]
    ),
    "center": lambda x: tf.image.central_crop(x, 0.5) - 1.0,
    "kernel": lambda x: tf.nn.conv2d(x, KERNEL, 2, "SAME") + tf.nn.convolution(x, KERNEL, [2, 2], "SAME", dilations=1),
    "kernel of each": lambda x: tf.nn.depthwise_conv2d(x, KERNEL[..., :2], [1, 2, 2, 1], "VALID"),
    "dilated kernel": lambda x: tf.nn.conv2d(x, KERNEL, [1, 1, 1, 1], "VALID", dilations=[2, 1]),
    "matrix": lambda x: tf.matmul(x, np.arange(12, dtype=np.float32).reshape(4, 3)),
    "matrices": lambda x: tf.tensordot(
        tf.matmul(tf.reduce_max(x, [1, 2]), tf.ones((2, 4)), transpose_b=True), SQUARE, 1
    ),
    "vector": lambda x: tf.tensordot(x, [1.0, 2.0, -1.0, 0.5], [[3], [0]]),
    "axes of an array": lambda x: tf.tensordot(x, KERNEL, (-1, 2))[:, :, :, 0],
    "grey": lambda x: tf.image.rgb_to_grayscale(x[..., 1:]),
    "matrix of a sequence": lambda x: tf.reduce_max(x, 1) @ tf.ones((4, 2)),
    "resize": lambda x: tf.image.resize(x, (16, 12), "nearest"),
    "blocks": lambda x: tf.nn.space_to_depth(tf.nn.depth_to_space(x, 2), 2),
    "pools": lambda x: tf.nn.max_pool2d(x, 2, 2, "SAME") + tf.nn.avg_pool2d(x, 2, 2, "SAME"),
    "preprocessing": lambda x: tf_keras.applications.mobilenet_v2.preprocess_input(x),
    "caffe": lambda x: tf_keras.applications.resnet50.preprocess_input(x[..., :3]),
    "torch": lambda x: tf_keras.applications.densenet.preprocess_input(x[..., :3]),
    "lambda": layers.Lambda(lambda x: tf.nn.relu(x[..., :2]) + 1),
    "keras functions": lambda x: tf_keras.activations.relu(x, max_value=6.0),
}


def same(model, core):
    rng = np.random.default_rng(0)
    x = rng.uniform(-4, 4, (2, *model.input_shape[1:])).astype(np.float32)
    expected = model(x).numpy()
    np.testing.assert_allclose(core(x), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def rewritten(model):
    """The core model; the user's layers have not been called again."""
    calls = [len(layer.outbound_nodes) for layer in model.layers]
    core = core_model(model)
    assert [len(layer.outbound_nodes) for layer in model.layers] == calls
    return core


def with_any_weights(model):
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.5, 1.5, values.shape) for values in model.get_weights()])
    return model


def classes(model):
    return [type(layer).__name__ for layer in model.layers]


@pytest.mark.parametrize(("shape", "layer", "made_of"), LAYERS.values(), ids=LAYERS)
def test_layers(shape, layer, made_of):
    inputs = tf_keras.Input(shape)
    model = with_any_weights(tf_keras.Model(inputs, layer(inputs)))
    core = rewritten(model)
    assert not [finding for finding in core.findings if finding.problem]
    assert made_of in classes(core.model)
    same(model, core.model)


@pytest.mark.parametrize("operators", OPERATORS.values(), ids=OPERATORS)
def test_operators(operators):
    inputs = tf_keras.Input(IMAGE)
    model = tf_keras.Model(inputs, operators(inputs))
    core = rewritten(model)
    assert not [finding for finding in core.findings if finding.problem]
    assert not any(hasattr(layer, "symbol") for layer in core.model.layers)
    same(model, core.model)


def test_a_model_of_core_layers_is_itself(residual_model):
    assert rewritten(residual_model).model is residual_model


def test_between_layers_of_sequences_nothing_is_reshaped():
    stack = [layers.Conv1D(4, 3), layers.BatchNormalization(), layers.ReLU(), layers.Conv1D(2, 3)]
    model = tf_keras.Sequential([layers.InputLayer(SEQUENCE), *stack, layers.GlobalAveragePooling1D()])
    assert classes(core_model(model).model).count("Reshape") == 1


def test_a_norm_behind_groups_stands_behind_each():
    stack = [layers.Conv2D(4, 3, groups=2), layers.BatchNormalization(), layers.ReLU()]
    model = with_any_weights(tf_keras.Sequential([layers.InputLayer(IMAGE), *stack]))
    core = core_model(model).model
    assert classes(core)[-1] == "Concatenate"
    assert classes(core).count("BatchNormalization") == 2
    same(model, core)


def test_a_shared_layer_stays_shared():
    inputs, shared = tf_keras.Input(IMAGE), layers.SeparableConv2D(4, 3, padding="same")
    model = tf_keras.Model(inputs, shared(shared(inputs)))
    core = core_model(model).model
    assert len(core.trainable_weights) == 3
    same(model, core)


def test_open_sizes_are_closed():
    inputs = tf_keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, activation="relu")(inputs)
    model = tf_keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    assert quantize_model(model, input_shape=(8, 8, 3)).input_shape == (None, 8, 8, 3)


def test_strip_returns_the_parts_with_their_weights():
    stack = [layers.SeparableConv2D(4, 3), layers.Flatten(), layers.Dense(2)]
    model = tf_keras.Sequential([layers.InputLayer(IMAGE), *stack])
    same(model, strip(quantize_model(model, "int8")))


def test_what_is_found_is_a_table():
    model = tf_keras.Sequential([layers.InputLayer(IMAGE), layers.SeparableConv2D(4, 3, name="separable")])
    assert str(check_model(model)) == "separable  SeparableConv2D  DepthwiseConv2D + Conv2D"


def test_the_scaled_sum_of_inception_resnet():
    inputs = tf_keras.Input(IMAGE)
    model = tf_keras.Model(inputs, CustomScaleLayer(0.17)([inputs, layers.Conv2D(4, 1)(inputs)]))
    core = core_model(model).model
    assert classes(core)[-1] == "Add"
    same(model, core)
