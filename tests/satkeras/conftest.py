"""What several tests of satkeras need; as fixtures, because a test module cannot import another."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from satkeras import quantize_model
from satkeras.models.insertion import has_quantizer


@pytest.fixture(scope="session")
def value_and_gradients():
    """A function for the value of `function(*arguments)` and the gradients of `sum(incoming * value)`."""

    def value_and_gradients(function, *arguments, incoming=1.0):
        tensors = [tf.constant(argument, tf.float32) for argument in arguments]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = function(*tensors)
            total = tf.reduce_sum(value * tf.constant(incoming, tf.float32))
        gradients = tape.gradient(total, tensors, unconnected_gradients="zero")
        return value.numpy(), *(gradient.numpy() for gradient in gradients)

    return value_and_gradients


@pytest.fixture(scope="session")
def round_trip():
    """A function that sends a quantizer through Keras' serialization, without custom_objects."""

    def round_trip(quantizer):
        config = tf_keras.utils.legacy.serialize_keras_object(quantizer)
        assert tf_keras.utils.legacy.deserialize_keras_object(config) == quantizer
        assert type(quantizer).from_config(quantizer.get_config()) == quantizer
        return config

    return round_trip


@pytest.fixture(scope="session")
def variables_of():
    """A function for the variables that a quantizer builds in a fresh layer."""

    def variables_of(quantizer):
        return quantizer.build((None, 4), "post_activation", tf_keras.layers.Layer())

    return variables_of


@pytest.fixture(scope="session")
def integers_on_grid():
    """A function for the integers of a quantizer's result; it raises for a value off the quantizer's grid."""

    def integers_on_grid(quantizer, x, variables, latent=None):
        params = quantizer.quant_params({name: variable.numpy() for name, variable in variables.items()}, latent)
        return params.integers_of(quantizer(tf.constant(x, tf.float32), False, variables).numpy())

    return integers_on_grid


def _images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (16, 8, 8, 3)).astype(np.float32), rng.integers(0, 5, 16)


@pytest.fixture
def images():
    """A batch of images as they are stored, 0 .. 255, and their classes."""
    return _images()


@pytest.fixture(scope="session")
def session_images():
    """`images` for fixtures that several tests share; not to be changed."""
    return _images()


def _residual_model():
    inputs = tf_keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="stem")(inputs)
    x = layers.BatchNormalization(name="stem_bn")(x)
    stream = layers.ReLU(6.0, name="stem_relu")(x)
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(stream)
    x = layers.BatchNormalization(name="conv_bn")(x)
    x = layers.ReLU(6.0, name="conv_relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.BatchNormalization(name="depthwise_bn")(x)
    x = layers.Add(name="add")([x, stream])
    x = layers.Conv2D(6, 1, activation="relu", name="head")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return tf_keras.Model(inputs, layers.Dense(5, activation="softmax", name="logits")(x), name="residual")


@pytest.fixture
def residual_model():
    """A residual block with everything: batch norms, ReLU6, a depthwise convolution, a signed stream, no batch norm."""
    return _residual_model()


@pytest.fixture(scope="session")
def quantized():
    """A function for `quantize_model` of the residual model, done once for the same arguments: a copy for each call."""
    models = {}

    def quantized(scheme="sat", **options):
        arguments = scheme, *options.items()
        if arguments not in models:
            tf_keras.utils.set_random_seed(0)
            models[arguments] = quantize_model(_residual_model(), scheme, **options)
        copy = tf_keras.models.clone_model(models[arguments])
        copy.set_weights(models[arguments].get_weights())
        tf_keras.utils.set_random_seed(0)  # the same for the test, whether the model was there or not
        return copy

    return quantized


@pytest.fixture(scope="session")
def quantizers_of():
    """A function for the quantizers of a quantized model by layer name."""

    def quantizers_of(model):
        return {layer.name: layer.quantize_config.quantizer for layer in model.layers if has_quantizer(layer)}

    return quantizers_of


@pytest.fixture
def train(images):
    """A function that trains a classifier of the images for some epochs of plain gradient descent.

    Eagerly: a graph takes longer to build than a few training steps. test_plain_keras.py compares both.
    """

    def train(model, epochs=1, rate=0.1):
        model.compile(tf_keras.optimizers.SGD(rate), "sparse_categorical_crossentropy", run_eagerly=True)
        model.fit(*images, batch_size=16, epochs=epochs, shuffle=False, verbose=0)
        return model

    return train
