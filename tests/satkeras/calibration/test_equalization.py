"""Channels of one size: the function stays, the channels end alike, and 4 bits hold them."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import satkeras
from satkeras._compat import weight_variables

EPSILON = 1e-5


def kernel_of(model, name):
    """What a layer of a quantized model multiplies by."""
    latent, quantizer, variables = weight_variables(model.get_layer(f"quant_{name}"))
    return quantizer(latent, False, variables).numpy()


def columns(kernel, channels):
    return kernel.reshape(-1, channels)


def spread(layer, channels, rng):
    """Gives a layer's channels sizes a hundred times apart."""
    kernel, *bias = layer.get_weights()
    sizes = rng.permutation(np.geomspace(0.1, 10, channels)).astype(np.float32)
    layer.set_weights([(columns(kernel, channels) * sizes).reshape(kernel.shape), *bias])


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def spread_model(rng):
    """A convolution with biases, a depthwise one and a dense layer, channels of all sizes, each with a batch norm."""
    x = inputs = tf_keras.Input((6, 6, 3))
    for layer in (layers.Conv2D(8, 3, name="convolution"), layers.DepthwiseConv2D(3, name="depthwise")):
        x = layers.ReLU()(layers.BatchNormalization(epsilon=EPSILON, name=f"{layer.name}_norm")(layer(x)))
    x = layers.Dense(16, name="dense")(layers.Flatten()(x))
    x = layers.ReLU()(layers.BatchNormalization(epsilon=EPSILON, name="dense_norm")(x))
    model = tf_keras.Model(inputs, layers.Dense(4, name="head")(x))
    model.get_layer("convolution").bias.assign(rng.normal(size=8))
    images = rng.uniform(0, 255, (64, 6, 6, 3)).astype(np.float32)
    for name, channels in (("convolution", 8), ("depthwise", 8), ("dense", 16)):
        spread(model.get_layer(name), channels, rng)
        norm = model.get_layer(f"{name}_norm")
        taken = tf_keras.Model(inputs, model.get_layer(name).output)(images).numpy()
        axes = tuple(range(taken.ndim - 1))
        norm.set_weights([rng.uniform(0.5, 2, channels), rng.normal(size=channels), taken.mean(axes), taken.var(axes)])
    return model, images


def freeze_norms(model):
    """Keeps calibration from correcting their statistics, which would hide that they were scaled wrongly."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False


def clamped(model, images):
    return satkeras.quantize_model(model, "sat", weight_bits=None, activation_bits=None, calibration_data=images)


def test_channels_end_alike_and_the_kernel_keeps_its_size(spread_model):
    model, images = spread_model
    found = clamped(model, images)
    for name, channels in (("convolution", 8), ("depthwise", 8), ("dense", 16)):
        kernel, before = kernel_of(found, name), model.get_layer(name).get_weights()[0]
        largest = np.abs(columns(kernel, channels)).max(0)
        np.testing.assert_allclose(largest, largest.max(), rtol=1e-4)
        sizes = np.abs(columns(before, channels)).max(0)
        assert sizes.max() > 30 * sizes.min()
        np.testing.assert_allclose(np.square(kernel).mean(), np.square(before).mean(), rtol=1e-4)


@pytest.mark.parametrize("frozen", [False, True])
def test_the_model_computes_what_it_did(frozen, spread_model):
    model, images = spread_model
    if frozen:
        freeze_norms(model)
    found = clamped(model, images)
    # float32 has its roundings elsewhere.
    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(
        found.predict(images, verbose=0), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max()
    )


def test_the_model_trains_as_it_did_but_for_epsilon(spread_model):
    model, images = spread_model
    expected = model(images, training=True).numpy()
    found = clamped(model, images)(images, training=True).numpy()
    assert np.abs(found - expected).max() < 0.15 * np.abs(expected).max()


def test_four_bits_hold_channels_of_all_sizes(spread_model):
    model, images = spread_model
    expected = model.predict(images, verbose=0)
    found = satkeras.quantize_model(
        model, "sat", activation_bits=8, overrides={"*": {"weight_bits": 4}}, calibration_data=images
    )
    error = np.square(found.predict(images, verbose=0) - expected).mean() / expected.var()
    assert error < 0.1


@pytest.mark.parametrize("dead", [0.0, 1e-30, 1e-6])
def test_a_dead_channel_stays_dead(dead, spread_model):
    model, images = spread_model
    kernel, bias = model.get_layer("convolution").get_weights()
    kernel[..., 3] *= dead
    model.get_layer("convolution").set_weights([kernel, bias])
    norm = model.get_layer("convolution_norm")
    gamma, beta, mean, variance = norm.get_weights()
    mean[3], variance[3] = bias[3] - 0.01, 0  # epsilon alone divides the channel's constant
    norm.set_weights([gamma, beta, mean, variance])
    freeze_norms(model)
    found = clamped(model, images)
    assert np.abs(kernel_of(found, "convolution")[..., 3]).max() <= 1.1 * np.abs(kernel[..., 3]).max() + 1e-12
    assert (found.get_layer("convolution_norm").moving_variance.numpy() >= 0).all()
    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(
        found.predict(images, verbose=0), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max()
    )
    # What a later layer may not let through.
    channel, known = (
        tf_keras.Model(one.inputs, one.get_layer("convolution_norm").output)(images)[..., 3] for one in (found, model)
    )
    np.testing.assert_allclose(channel, known, rtol=1e-3)


def test_a_batch_norm_without_epsilon_frees_its_channels(rng):
    inputs = tf_keras.Input((4, 4, 3))
    model = tf_keras.Model(inputs, layers.BatchNormalization(epsilon=0.0)(layers.Conv2D(4, 1, name="kernel")(inputs)))
    spread(model.get_layer("kernel"), 4, rng)
    images = rng.uniform(0, 255, (8, 4, 4, 3)).astype(np.float32)
    largest = np.abs(columns(kernel_of(clamped(model, images), "kernel"), 4)).max(0)
    np.testing.assert_allclose(largest, largest.max(), rtol=1e-4)


def _head_alone(x):
    return layers.Conv2D(4, 1, name="kernel")(x)


def _two_readers(x):
    made = layers.Conv2D(4, 1, name="kernel")(x)
    return layers.Add()([layers.BatchNormalization()(made), made])


def _called_twice(x):
    kernel = layers.Conv2D(3, 1, name="kernel")
    return layers.BatchNormalization()(kernel(layers.ReLU()(layers.BatchNormalization()(kernel(x)))))


def _norm_called_twice(x):
    norm = layers.BatchNormalization()
    x = layers.ReLU()(norm(layers.Conv2D(4, 1, name="kernel")(x)))
    return norm(layers.Conv2D(4, 1)(x))


def _an_output(x):
    made = layers.Conv2D(4, 1, name="kernel")(x)
    return [layers.BatchNormalization()(made), made]


@pytest.mark.parametrize("make", [_head_alone, _two_readers, _called_twice, _norm_called_twice, _an_output])
def test_a_kernel_whose_channels_are_not_free_stays(make, rng):
    inputs = tf_keras.Input((4, 4, 3))
    model = tf_keras.Model(inputs, make(inputs))
    layer = model.get_layer("kernel")
    spread(layer, layer.filters, rng)
    images = rng.uniform(0, 255, (8, 4, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(kernel_of(clamped(model, images), "kernel"), layer.get_weights()[0], rtol=1e-4)


@pytest.mark.parametrize(("scheme", "bits"), [("int8", 8), ("qn", "ternary")])
def test_schemes_with_grids_of_their_own_keep_the_channels(scheme, bits, spread_model):
    model, images = spread_model
    found = satkeras.quantize_model(model, scheme, weight_bits=bits, activation_bits=8, calibration_data=images)
    for name in ("convolution", "depthwise", "dense"):
        latent, *_ = weight_variables(found.get_layer(f"quant_{name}"))
        np.testing.assert_array_equal(latent, model.get_layer(name).get_weights()[0])


def test_without_data_the_weights_are_the_users(spread_model):
    model, _ = spread_model
    latent, *_ = weight_variables(satkeras.quantize_model(model, "sat").get_layer("quant_convolution"))
    np.testing.assert_array_equal(latent, model.get_layer("convolution").get_weights()[0])
