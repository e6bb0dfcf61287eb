"""Batch norms' statistics from data, for the weights as they are."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import satkeras
import tflite_export
from satkeras import reestimate_batch_norm

NORMS = ("stem_bn", "conv_bn", "depthwise_bn")


@pytest.fixture
def model(residual_model, images):
    model = satkeras.quantize_model(residual_model, calibration_data=images[0])
    for name in NORMS:  # what training might leave
        norm = model.get_layer(name)
        norm.moving_mean.assign(norm.moving_mean + 1.0)
        norm.moving_variance.assign(norm.moving_variance * 3.0)
    return model


def statistics(model):
    return {name: [v.numpy() for v in model.get_layer(name).non_trainable_variables] for name in NORMS}


def test_the_first_batch_norm_has_the_moments_of_all_data(model, images):
    reestimate_batch_norm(model, images[0], batch_size=4)
    read = tf_keras.Model(model.input, model.get_layer("stem_bn").input).predict(images[0], verbose=0)
    mean, variance = statistics(model)["stem_bn"]
    np.testing.assert_allclose(mean, read.mean((0, 1, 2)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(variance, read.var((0, 1, 2)), rtol=1e-4)


def test_with_one_batch_they_are_what_training_sees(model, images):
    trained = tf_keras.models.clone_model(model)
    trained.set_weights(model.get_weights())
    for name in NORMS:
        trained.get_layer(name).momentum = 0.0
    trained(images[0], training=True)
    reestimate_batch_norm(model, images[0])
    for name, expected in statistics(trained).items():
        for found, value in zip(statistics(model)[name], expected, strict=True):
            # Keras divides by one less than the number of values.
            np.testing.assert_allclose(found, value, rtol=5e-3, atol=1e-3)


def test_nothing_else_changes(model, images):
    model.get_layer("conv_bn").trainable = False
    before = {variable.name: variable.numpy() for variable in model.weights}
    reestimate_batch_norm(model, images[0])
    changed = {v.name for v in model.weights if not np.array_equal(v, before[v.name])}
    assert changed == {
        f"{name}/moving_{what}:0" for name in ("stem_bn", "depthwise_bn") for what in ("mean", "variance")
    }


def test_all_forms_of_data_give_the_same(model, images):
    weights = model.get_weights()
    results = []
    for data in (
        images[0],
        [images[0]],
        tf.data.Dataset.from_tensor_slices(images).batch(8),
        lambda: ([image[None]] for image in images[0]),
    ):
        model.set_weights(weights)
        reestimate_batch_norm(model, data)
        results.append(statistics(model))
    for result in results[1:]:
        for name in NORMS:
            np.testing.assert_array_equal(result[name], results[0][name])


def test_the_file_is_still_the_model(model, images, tmp_path):
    reestimate_batch_norm(model, images[0])
    report = tflite_export.export_tflite(model, tmp_path / "model.tflite", verify_data=images[0])
    assert report.verification.differing == 0


def test_what_does_not_fit_is_refused(model, residual_model, images):
    with pytest.raises(ValueError, match="reestimate_batch_norm needs a model that"):
        reestimate_batch_norm(residual_model, images[0])
    with pytest.raises(ValueError, match="data must have shape"):
        reestimate_batch_norm(model, images[0][:, :4])
    with pytest.raises(ValueError, match="at least one"):
        reestimate_batch_norm(model, images[0][:0])
    for name in NORMS:
        model.get_layer(name).trainable = False
    with pytest.raises(ValueError, match="not frozen"):
        reestimate_batch_norm(model, images[0])
