"""What a user adds to the loss reaches the quantized model, or is refused with the way out."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

import satkeras


def network(**options):
    inputs = tf_keras.Input((6, 6, 3), name="image")
    x = layers.Conv2D(4, 3, name="conv", **options)(inputs)
    pooled = layers.GlobalAveragePooling2D(name="pool")(layers.ReLU(name="relu")(x))
    return tf_keras.Model(inputs, layers.Dense(2, name="head")(pooled)), pooled


def images():
    return np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("add", "called"),
    [
        (lambda model, x: model.add_loss(tf.reduce_mean(x)), "add_loss"),
        (lambda model, x: model.add_loss(lambda: tf.constant(1.0)), "add_loss"),
        (lambda model, x: model.add_metric(tf.reduce_mean(x), name="mean"), "add_metric"),
    ],
)
@pytest.mark.parametrize("stage", [1, 2])
def test_losses_beside_the_layers_are_refused_and_the_advice_works(stage, add, called):
    model, x = network()
    if stage == 2:
        model = satkeras.quantize_model(model, weight_bits=None, activation_bits=None)
        x = model.get_layer("pool").output
    add(model, x)
    with pytest.raises(ValueError, match=rf"^quantize_model copies layers.*with {called}(.|\n)*  q.add_loss\(0.01"):
        satkeras.quantize_model(model)
    q = satkeras.quantize_model(network()[0])
    feature = q.get_layer("quant_relu_output").output
    q.add_loss(0.01 * tf.reduce_mean(feature**2))
    q.add_metric(tf.reduce_mean(feature), name="feature")
    q.compile("sgd", "mse")
    found = q.evaluate(images(), np.zeros((8, 2)), verbose=0, return_dict=True)
    expected = tf_keras.Model(q.input, feature).predict(images(), verbose=0)
    assert found["feature"] == pytest.approx(expected.mean(), rel=1e-4)
    answers = np.square(q.predict(images(), verbose=0)).mean()
    assert found["loss"] == pytest.approx(answers + 0.01 * np.square(expected).mean(), rel=1e-4)


@pytest.mark.parametrize("name", ["kernel_regularizer", "bias_regularizer", "activity_regularizer"])
def test_a_convolutions_regularizers_reach_the_loss(name):
    model, _ = network(**{name: "l2"}, bias_initializer="ones")
    q = satkeras.quantize_model(model, "int8")
    float_losses, losses = ([float(loss) for loss in (one(images()), one.losses)[1]] for one in (model, q))
    np.testing.assert_allclose(losses, float_losses, rtol=0.01)


def test_an_activity_regularizer_that_keras_forgets_is_refused():
    inputs = tf_keras.Input((6, 6, 3), name="image")
    x = layers.ReLU(name="relu", activity_regularizer="l2")(layers.Conv2D(4, 3, name="conv")(inputs))
    model = tf_keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten(name="flat")(x)))
    with pytest.raises(ValueError, match=r"Received: one on 'relu'.*q.add_loss\(regularizer\(q.get_layer\('quant_relu"):
        satkeras.quantize_model(model)


def test_weights_of_losses_samples_and_classes_count():
    inputs = tf_keras.Input((6, 6, 3), name="image")
    x = layers.Flatten(name="flat")(layers.Conv2D(4, 3, activation="relu", name="conv")(inputs))
    model = tf_keras.Model(inputs, [layers.Dense(2, name=name)(x) for name in ("left", "right")])
    q = satkeras.quantize_model(model, calibration_data=images())
    q.compile("sgd", "mse", loss_weights={"left": 1.0, "right": 10.0})
    y = {"left": np.zeros((8, 2)), "right": np.zeros((8, 2))}
    found = q.evaluate(images(), y, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(found["left_loss"] + 10 * found["right_loss"], rel=1e-5)
    one = satkeras.quantize_model(network()[0], calibration_data=images())
    one.compile(tf_keras.optimizers.SGD(0.0), tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    labels = np.arange(8) % 2
    by_class = one.fit(images(), labels, class_weight={0: 0.0, 1: 1.0}, verbose=0).history["loss"][0]
    by_sample = one.fit(images(), labels, sample_weight=labels.astype(np.float32), verbose=0).history["loss"][0]
    assert by_class == pytest.approx(by_sample, rel=1e-5)
