"""Classes and activation functions of a user's own: what their code calls is what is quantized."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

import satkeras
import tflite_export
from satkeras.models.followed import followed
from satkeras.models.rewriting import core_model

IMAGE = (8, 6, 4)


class Shuffle(layers.Layer):
    """A function of TensorFlow operators."""

    def call(self, inputs):
        height, width, count = inputs.shape[1:]
        halves = tf.reshape(inputs, [-1, height, width, 2, count // 2])
        return tf.reshape(tf.transpose(halves, [0, 1, 2, 4, 3]), [-1, height, width, count])


class Block(layers.Layer):
    """Layers inside a layer, whose mode in training is an argument, not in training by default."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv")
        self.norm = layers.BatchNormalization(name="norm")
        self.drop = layers.Dropout(0.1)

    def call(self, inputs, training=False):
        y = tf.nn.relu(self.norm(self.conv(inputs), training=training))
        return inputs + self.drop(y, training=training)


class Fuse(layers.Layer):
    """Two arguments."""

    def call(self, one, other):
        return tf.nn.relu(one + other)


class Inner(tf_keras.Model):
    """A subclassed model, of a layer of the user's."""

    def __init__(self):
        super().__init__()
        self.block = Block(name="block")

    def call(self, inputs):
        return tf.reduce_mean(self.block(inputs), [1, 2])


class SmallConv(layers.Conv2D):
    """Other defaults."""

    def __init__(self, filters, extra=1, **kwargs):
        super().__init__(filters, 3, padding="same", use_bias=False, **kwargs)
        self.extra = extra

    def get_config(self):
        return {**super().get_config(), "extra": self.extra}


class Compiled(layers.Layer):
    @tf.function
    def call(self, inputs, training=None):
        return tf.nn.relu(inputs) * 2.0


def capped(x):
    return tf.minimum(tf.maximum(x, 0.0), 4.0)


def doubled(x):
    return x + x


def model_of(function, shape=IMAGE):
    inputs = tf_keras.Input(shape)
    return with_any_weights(tf_keras.Model(inputs, function(inputs)))


def with_any_weights(model):
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.1, 1, weight.shape) for weight in model.get_weights()])
    return model


def same(model):
    """That the core model computes what the user's does, which is as it was."""
    before, losses = model.get_weights(), len(model.losses)
    core = core_model(model)
    assert not [finding for finding in core.findings if finding.problem], str(core)
    values = np.random.default_rng(1).normal(size=(3, *model.input_shape[1:])).astype(np.float32)
    # The same operators in float32; batch norms fold their moments otherwise.
    np.testing.assert_allclose(core.model(values), model(values), rtol=1e-5, atol=1e-5)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(model.losses) == losses
    return core.model


FOLLOWED = {
    "function": lambda x: Shuffle(name="own")(x),
    "layers inside": lambda x: Block(name="own")(Block()(x)),
    "shared": lambda x: (lambda block: block(block(x)))(Block(name="own")),
    "inherited": lambda x: SmallConv(4, activation="relu", name="own")(x),
    "inherited and shared": lambda x: (lambda conv: conv(conv(x)))(SmallConv(4, activation=capped, name="own")),
    "compiled": lambda x: Compiled(name="own")(x),
    "two arguments": lambda x: Fuse(name="own")(x, layers.Conv2D(4, 1)(x)),
    "model": lambda x: Inner()(x),
    "in a Lambda": lambda x: layers.Lambda(capped)(Shuffle()(x)),
    "dense over time": lambda x: layers.TimeDistributed(layers.Dense(3, activation="relu"))(x),
    "convolution over time": lambda x: layers.TimeDistributed(layers.Conv1D(3, 3))(x),
    "model over time": lambda x: layers.TimeDistributed(tf_keras.Sequential([layers.Flatten(), layers.Dense(2)]))(x),
}


@pytest.mark.parametrize("function", FOLLOWED.values(), ids=FOLLOWED)
def test_classes(function):
    same(model_of(function))


ACTIVATED = {
    "conv": lambda activation: layers.Conv2D(3, 3, activation=activation, name="own"),
    "depthwise": lambda activation: layers.DepthwiseConv2D(3, activation=activation, name="own"),
    "separable": lambda activation: layers.SeparableConv2D(3, 3, activation=activation, name="own"),
    "dense": lambda activation: layers.Dense(3, activation=activation, name="own"),
    "alone": lambda activation: layers.Activation(activation, name="own"),
}
FUNCTIONS = {
    "function": capped,
    "lambda": lambda x: x * tf.sigmoid(1.702 * x),
    "partial": functools.partial(tf.nn.leaky_relu, alpha=0.1),
    "TensorFlow's": tf.abs,
    "layer with weights": layers.PReLU(shared_axes=[1, 2], name="slopes"),
    "own class": Shuffle(),
    "compiled": tf.function(doubled),
}


@pytest.mark.parametrize("activation", [capped, FUNCTIONS["lambda"]], ids=["function", "lambda"])
@pytest.mark.parametrize("layer", ACTIVATED.values(), ids=ACTIVATED)
def test_activations_of_every_layer(layer, activation):
    model = model_of(layer(activation))
    same(model)
    assert model.get_layer("own").activation is activation


@pytest.mark.parametrize("activation", FUNCTIONS.values(), ids=FUNCTIONS)
def test_every_activation(activation):
    same(model_of(layers.Conv2D(4, 3, activation=activation)))


def test_a_shared_layer_with_an_activation_stays_shared():
    core = same(model_of(lambda x: (lambda conv: conv(conv(x)))(layers.Conv2D(4, 1, activation=capped, name="own"))))
    assert [layer.name for layer in core.layers if isinstance(layer, layers.Conv2D)] == ["own"]


def test_a_batch_norm_inside_a_class_trains():
    model = satkeras.quantize_model(model_of(lambda x: Block(name="own")(layers.Conv2D(4, 1)(x))))
    norm = model.get_layer("own/norm")
    before = norm.moving_mean.numpy()
    model.compile("sgd", "mse")
    model.fit(np.full((4, *IMAGE), 100.0, np.float32), np.zeros((4, *IMAGE)), verbose=0)
    assert (norm.moving_mean.numpy() != before).any()


def test_frozen_inside_a_class():
    block = Block(name="own")
    model = model_of(lambda x: block(layers.Conv2D(4, 1)(x)))
    block.trainable = False
    quantized = satkeras.quantize_model(model)
    assert not quantized.get_layer("quant_own/conv").trainable
    assert not quantized.get_layer("own/norm").trainable


@pytest.mark.parametrize("input_shape", [None, IMAGE])
def test_a_subclassed_model(input_shape, tmp_path):
    model = Inner()
    model.build((None, *IMAGE))
    images = np.random.default_rng(0).integers(0, 256, (8, *IMAGE)).astype(np.float32)
    quantized = satkeras.quantize_model(model, calibration_data=images, input_shape=input_shape)
    assert [finding.name for finding in satkeras.check_model(model).findings][0] == "block/conv"
    report = tflite_export.export_tflite(quantized, tmp_path / "model.tflite", verify_data=images)
    assert report.verification.differing == 0


def test_only_functions_of_tensors_alone_are_followed():
    x = tf_keras.Input(IMAGE)
    assert followed(doubled, x) is not None
    assert followed(lambda x: 1.0, x) is None
    assert followed(lambda x: x[0].undefined, x) is None
