"""`strip`: the float network that a quantized model is but for its rounding."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import satkeras


@pytest.fixture(scope="module")
def pretrained():
    """A network whose kernels are large, so that tanh bends them, and whose batch norm knows its data."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (32, 6, 6, 1)).astype(np.float32)
    inputs = tf_keras.Input((6, 6, 1), name="image")
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="first")(inputs)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    x = layers.Conv2D(4, 3, activation="relu", name="second")(x)
    model = tf_keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten(name="flat")(x)))
    for name in ("first", "second", "head"):
        kernel = model.get_layer(name).weights[0]
        kernel.assign(rng.normal(0, 1, kernel.shape) * rng.uniform(0.2, 2, kernel.shape[-1]))
    values = model.get_layer("first")(images).numpy()
    norm = model.get_layer("norm")
    norm.moving_mean.assign(values.mean((0, 1, 2)))
    norm.moving_variance.assign(values.var((0, 1, 2)))
    for layer in model.layers:
        layer.trainable = False  # calibration would correct what rounding changed
    return model, images


@pytest.mark.thinned(3)
@pytest.mark.parametrize("weight_bits", [3, 8])
@pytest.mark.parametrize("scheme", ["sat", "pact", "dorefa", "int8", "lsq"])
def test_a_calibrated_model_stripped_is_the_pretrained_one(scheme, weight_bits, pretrained):
    model, images = pretrained
    q = satkeras.quantize_model(model, scheme, weight_bits=weight_bits, calibration_data=images)
    expected = model.predict(images, verbose=0)
    found = satkeras.strip(q).predict(images, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("scheme", ["sat", "pact", "dorefa"])
def test_a_clamped_model_stripped_computes_the_same_and_the_second_stage_starts_at_its_latent_kernels(
    scheme, pretrained
):
    model, images = pretrained
    clamped = satkeras.quantize_model(model, scheme, weight_bits=None, activation_bits=None)
    expected = clamped.predict(images, verbose=0)
    found = satkeras.strip(clamped).predict(images, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    second = satkeras.quantize_model(clamped, scheme)
    for layer in clamped.layers:
        if layer.name.startswith("quant_"):
            np.testing.assert_array_equal(second.get_layer(layer.name).get_weights()[0], layer.get_weights()[0])


def test_a_second_stage_of_another_scheme_starts_at_the_same_network(pretrained):
    model, images = pretrained
    clamped = satkeras.quantize_model(model, "sat", weight_bits=None, activation_bits=None)
    q = satkeras.quantize_model(clamped, "int8", weight_bits=8, activation_bits=8, calibration_data=images)
    expected = clamped.predict(images, verbose=0)
    assert np.abs(q.predict(images, verbose=0) - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize(
    "names", [("x", "quant_x"), ("x", "quant_x_output"), ("x", "x_output"), ("quant_x", "quant_x_output")]
)
@pytest.mark.parametrize("kind", [lambda name: layers.Conv2D(3, 1, name=name), lambda name: layers.ReLU(name=name)])
def test_names_that_look_like_the_librarys_own(kind, names, pretrained):
    _, images = pretrained
    stack = [layers.InputLayer((6, 6, 1)), layers.Conv2D(3, 3, name=names[0]), kind(names[1])]
    model = tf_keras.Sequential([*stack, layers.Flatten(name="flat"), layers.Dense(2, name="head")])
    expected = model.predict(images, verbose=0)
    for layer in model.layers:
        layer.trainable = False
    for bits in (None, 8):
        q = satkeras.quantize_model(model, "int8", weight_bits=bits, activation_bits=bits, calibration_data=images)
        stripped = satkeras.strip(q)
        assert [layer.name for layer in stripped.layers][-4:] == [*names, "flat", "head"]
        np.testing.assert_allclose(stripped.predict(images, verbose=0), expected, rtol=1e-4, atol=1e-3)
