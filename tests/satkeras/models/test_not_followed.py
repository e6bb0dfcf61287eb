"""Classes and activation functions of a user's own that are refused, and why."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

import satkeras


class OwnWeights(layers.Layer):
    def build(self, input_shape):
        self.scale = self.add_weight(name="scale", shape=input_shape[-1:], initializer="ones")

    def call(self, inputs):
        return inputs * self.scale


class OwnLoss(layers.Layer):
    def call(self, inputs):
        self.add_loss(tf.reduce_mean(inputs))
        return inputs * 2.0


class OtherInTraining(layers.Layer):
    def call(self, inputs, training=None):
        return inputs * tf.random.uniform([]) if training else inputs


class OtherNumberInTraining(layers.Layer):
    def call(self, inputs, training=None):
        return inputs * (0.5 if training else 1.5)


class Tied(layers.Layer):
    """Reads a weight of a layer without calling it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4)

    def call(self, inputs):
        return tf.matmul(self.dense(inputs), self.dense.kernel, transpose_b=True)


class Unseen(layers.Layer):
    def call(self, inputs):
        return unseen(inputs)


class ImageDropout(layers.Dropout):
    def _get_noise_shape(self, inputs):
        return (tf.shape(inputs)[0], 1, 1, 1)


class Standardized(layers.Conv2D):
    """Conv2D's own call, of other kernels."""

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel - tf.reduce_mean(kernel))


class Own(tf_keras.Model):
    """A model that trains in its own way."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)

    def train_step(self, data):
        return {"loss": tf.constant(0.0)}


def unseen(x):
    return tf.map_fn(lambda image: 2.0 * image, x)


def model_of(function):
    inputs = tf_keras.Input((8, 6, 4))
    return tf_keras.Model(inputs, function(inputs))


REFUSED = {
    "weights": OwnWeights,
    "losses": OwnLoss,
    "training": OtherInTraining,
    "numbers in training": OtherNumberInTraining,
    "no operators": Unseen,
}


@pytest.mark.parametrize("cls", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_followed(cls):
    model = model_of(lambda x: layers.Conv2D(3, 1)(cls(name="own")(layers.Conv2D(3, 1)(x))))
    losses = len(model.losses)
    with pytest.raises(
        ValueError, match=rf"'own' \({cls.__name__}\): {cls.__name__} is no class of Keras', and its call"
    ):
        satkeras.quantize_model(model)
    assert len(model.losses) == losses


def test_another_computation_in_an_inherited_call():
    with pytest.raises(ValueError, match="Standardized has the call of Conv2D, but computes something else"):
        satkeras.quantize_model(model_of(Standardized(3, 1)))
    with pytest.raises(ValueError, match="ImageDropout is no Dropout: it has its own _get_noise_shape"):
        satkeras.quantize_model(model_of(lambda x: ImageDropout(0.1)(layers.Conv2D(3, 1)(x))))


def test_a_weight_that_is_read_past_its_layer():
    with pytest.raises(ValueError, match=r"'tied/tf.linalg.matmul' .* reads a variable"):
        satkeras.quantize_model(model_of(Tied(name="tied")))


def test_a_model_that_trains_in_its_own_way():
    model = Own()
    model.build((None, 4))
    with pytest.raises(ValueError, match="no train_step or the like of its own"):
        satkeras.quantize_model(model)


def test_an_activation_that_cannot_be_followed():
    with pytest.raises(ValueError, match=r"Keras can follow: .*test_not_followed.py:\d+: def unseen"):
        satkeras.quantize_model(model_of(layers.Conv2D(3, 1, activation=unseen)))
    with pytest.raises(ValueError, match=r"its activation calls tf.numpy_function: no rule"):
        satkeras.quantize_model(
            model_of(layers.Conv2D(3, 1, activation=lambda x: tf.numpy_function(np.negative, [x], tf.float32)))
        )
    with pytest.raises(ValueError, match=r"its activation calls tf.math.sin: no rule"):
        satkeras.quantize_model(model_of(layers.Conv2D(3, 1, activation=tf.sin)))
