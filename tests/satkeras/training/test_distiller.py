"""A student that learns from a teacher, as a Keras model."""

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

import satkeras
import tflite_export
from satkeras import Distiller
from satkeras.callbacks import TemperaturePerStep
from satkeras.formulas.distillation import soft_cross_entropy

# Losses are compared to a thousandth: two graphs may round one integer of a logit differently.
LABELS = tf_keras.losses.SparseCategoricalCrossentropy()


def network(activation="softmax", channels=4, keras=tf_keras):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(channels, 3, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="bn")(x)
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.Conv2D(channels, 3, activation="relu", name="second")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(5, activation=activation, name="logits")(x))


@pytest.fixture
def teacher():
    return network()


@pytest.fixture
def student(teacher, images):
    return satkeras.quantize_model(teacher, calibration_data=images[0])


def logits_of(probabilities):
    return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))


def expected_loss(student, teacher, images, temperature=4.0, weight=0.5):
    x, y = images
    own, answers = (model.predict(x, verbose=0) for model in (student, teacher))
    lesson = soft_cross_entropy(logits_of(answers), logits_of(own), temperature)
    return float((1 - weight) * LABELS(y, own) + weight * tf.reduce_mean(lesson))


@pytest.mark.thinned(2)
@pytest.mark.parametrize(("temperature", "weight"), [(4.0, 0.5), (1.0, 0.9), (2.0, 0.0), (2.0, 1.0)])
def test_the_loss_is_the_weighted_mean(temperature, weight, student, teacher, images):
    distiller = Distiller(student, teacher, temperature=temperature, teacher_weight=weight)
    distiller.compile("sgd", LABELS, metrics=["accuracy"])
    found = distiller.evaluate(*images, batch_size=16, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(expected_loss(student, teacher, images, temperature, weight), rel=1e-3)
    assert found["accuracy"] == np.mean(student.predict(images[0], verbose=0).argmax(-1) == images[1])


def test_logits_and_probabilities_teach_the_same(student, teacher, images):
    as_logits = network(None)
    as_logits.set_weights(teacher.get_weights())

    class Subclassed(tf_keras.Model):
        def call(self, inputs, training=None):
            return as_logits(inputs, training=training)

    losses = []
    for one, told in ((teacher, None), (as_logits, None), (Subclassed(), "logits")):
        distiller = Distiller(student, one, teacher_output=told)
        distiller.compile("sgd", LABELS)
        losses.append(distiller.evaluate(*images, batch_size=16, verbose=0))
    np.testing.assert_allclose(losses, losses[0], rtol=1e-3)


def test_a_student_of_logits(teacher, images):
    student = satkeras.quantize_model(network(None), calibration_data=images[0])
    distiller = Distiller(student, teacher)
    distiller.compile("sgd", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    own, answers = (model.predict(images[0], verbose=0) for model in (student, teacher))
    expected = tf.reduce_mean(soft_cross_entropy(logits_of(answers), own, 4.0)) / 2
    expected += tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)(images[1], own) / 2
    assert distiller.evaluate(*images, batch_size=16, verbose=0) == pytest.approx(float(expected), rel=1e-3)


def test_features_are_compared_in_units_of_the_teachers(student, teacher, images):
    pairs = {"quant_relu_output": "relu", "bn": "bn"}
    distiller = Distiller(student, teacher, features=pairs, feature_weight=3.0)
    distiller.compile("sgd", LABELS)
    differences = []
    for own, shown in pairs.items():
        s, t = (
            tf_keras.Model(model.input, model.get_layer(name).output).predict(images[0], verbose=0)
            for model, name in ((student, own), (teacher, shown))
        )
        differences.append(np.square(s - t).mean() / np.square(t).mean())
    expected = expected_loss(student, teacher, images) + 3.0 * np.mean(differences)
    assert np.mean(differences) > 0.01
    assert distiller.evaluate(*images, batch_size=16, verbose=0) == pytest.approx(expected, rel=1e-3)


def test_the_student_learns_and_the_teacher_stays(student, teacher, images):
    taught = [value.copy() for value in teacher.get_weights()]
    distiller = Distiller(student, teacher, features={"quant_relu_output": "relu"})
    assert {v.ref() for v in distiller.trainable_variables} == {v.ref() for v in student.trainable_variables}
    assert {v.ref() for v in distiller.weights} == {v.ref() for v in student.weights}
    distiller.compile(tf_keras.optimizers.SGD(0.02), LABELS)
    history = distiller.fit(*images, batch_size=16, epochs=20, verbose=0).history["loss"]
    assert history[-1] < history[0]
    for before, now in zip(taught, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(before, now)


def test_without_labels_it_comes_closer_to_the_teacher(student, teacher, images):
    student.get_layer("quant_logits").layer.bias.assign([20.0, -20.0, 20.0, -20.0, 0.0])
    answers = logits_of(teacher.predict(images[0], verbose=0))
    least = float(tf.reduce_mean(soft_cross_entropy(answers, answers, 4.0))) / 2
    distiller = Distiller(student, teacher)
    distiller.compile(tf_keras.optimizers.SGD(0.01))
    distance = np.array(distiller.fit(images[0], batch_size=16, epochs=40, verbose=0).history["loss"]) - least
    assert 0 < distance[-1] < 0.9 * distance[0]


def test_the_student_is_what_is_saved_and_exported(student, teacher, images, tmp_path):
    distiller = Distiller(student, teacher)
    distiller.compile("sgd", LABELS)
    distiller.fit(
        *images,
        verbose=0,
        callbacks=[
            tf_keras.callbacks.ModelCheckpoint(str(tmp_path / "whole.keras")),
            tf_keras.callbacks.ModelCheckpoint(str(tmp_path / "only.weights.h5"), save_weights_only=True),
            satkeras.TensorBoardQuantization(tmp_path / "logs"),
        ],
    )
    predicted = student.predict(images[0], verbose=0)
    np.testing.assert_array_equal(distiller.predict(images[0], verbose=0), predicted)
    loaded = satkeras.load_model(tmp_path / "whole.keras")
    np.testing.assert_array_equal(loaded.predict(images[0], verbose=0), predicted)
    student.set_weights([0 * value for value in student.get_weights()])
    student.load_weights(tmp_path / "only.weights.h5")
    np.testing.assert_array_equal(student.predict(images[0], verbose=0), predicted)
    report = tflite_export.export_tflite(distiller.student, tmp_path / "model.tflite", verify_data=images[0])
    assert report.verification.differing == 0
    with pytest.raises(ValueError, match="get_layer"):
        tflite_export.export_tflite(distiller, tmp_path / "other.tflite")


def test_optimizers_and_callbacks_see_the_student(images):
    teacher = network()
    student = satkeras.quantize_model(teacher, "qn", calibration_data=images[0])
    satkeras.set_thresholds(student, images[0])
    distiller = Distiller(student, teacher)
    for of in (satkeras.learned_variables, satkeras.undecayed_variables):
        assert [v.ref() for v in of(distiller)] == [v.ref() for v in of(student)] != []
    distiller.compile(satkeras.TransitionRateSGD(1e-3), LABELS)
    distiller.fit(*images, batch_size=8, verbose=0, callbacks=[TemperaturePerStep(5.0)])
    temperatures = [v.numpy() for v in student.weights if "temperature" in v.name]
    assert 10.0 in temperatures


def test_a_teacher_of_keras_3(images):
    teacher = network(keras=keras3)
    student = satkeras.quantize_model(teacher, calibration_data=images[0])
    distiller = Distiller(student, teacher)
    distiller.compile("sgd", LABELS)
    own = student.predict(images[0], verbose=0)
    lesson = soft_cross_entropy(logits_of(teacher(images[0])), logits_of(own), 4.0)
    expected = float(LABELS(images[1], own) + tf.reduce_mean(lesson)) / 2
    assert distiller.evaluate(*images, batch_size=16, verbose=0) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"teacher_weight": 1.1},
        {"feature_weight": -1.0},
        {"teacher_output": "classes"},
        {"features": {"no_such": "relu"}},
        {"features": {"quant_relu_output": "no_such"}},
        {"features": {"quant_relu_output": "pool"}},
    ],
    ids=str,
)
def test_a_bad_argument_is_refused(options, student, teacher):
    with pytest.raises(ValueError, match="Received: "):
        Distiller(student, teacher, **options)


def test_models_that_do_not_fit_are_refused(student, teacher):
    class Subclassed(tf_keras.Model):
        def call(self, inputs):
            return teacher(inputs)

    small = tf_keras.Sequential([tf_keras.Input((4, 4, 3)), layers.Flatten(), layers.Dense(5)])
    binary = network("sigmoid")
    many = tf_keras.Model(teacher.input, [teacher.output, teacher.output])
    with pytest.raises(TypeError, match="student must be"):
        Distiller(Subclassed(), teacher)
    with pytest.raises(TypeError, match="teacher must be"):
        Distiller(student, 3)
    with pytest.raises(ValueError, match="teacher_output="):
        Distiller(student, Subclassed())
    with pytest.raises(ValueError, match="inputs of the same shapes"):
        Distiller(student, small)
    with pytest.raises(ValueError, match="'logits' is a sigmoid"):
        Distiller(student, binary)
    with pytest.raises(ValueError, match="one output"):
        Distiller(student, many)
    with pytest.raises(ValueError, match="features need a functional teacher"):
        Distiller(student, Subclassed(), teacher_output="probabilities", features={"bn": "bn"})
