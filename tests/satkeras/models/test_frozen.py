"""Frozen means frozen: kernels, clips, ranges, thresholds and statistics, whenever and however a layer was frozen."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

import satkeras
from satkeras.callbacks import TemperaturePerStep
from satkeras.models.insertion import has_quantizer

STEPS = 3


def float_model():
    """Two blocks and a head; the residual stream gets branches and a range of its own."""
    x = inputs = tf_keras.Input((6, 6, 3), name="image")
    for name in ("a", "b"):
        y = layers.Conv2D(4, 3, padding="same", use_bias=False, name=name)(x)
        y = layers.ReLU(name=f"{name}_relu")(layers.BatchNormalization(name=f"{name}_norm", momentum=0.5)(y))
        x = y if name == "a" else layers.Add(name="add")([x, y])
    pooled = layers.GlobalAveragePooling2D(name="pool")(x)
    return tf_keras.Model(inputs, layers.Dense(3, name="head")(pooled))


def quantized(model, scheme, images):
    q = satkeras.quantize_model(model, scheme, calibration_data=images)
    if scheme == "qn":
        satkeras.set_thresholds(q, images)
    return q


def moved(q, images):
    """The names of the layers with a variable that some training steps moved."""
    q.compile(tf_keras.optimizers.SGD(0.5), "mse", run_eagerly=True)
    callbacks = []
    if any("temperature" in variable.name for variable in q.weights):
        callbacks = [TemperaturePerStep(1.0)]
    before = {layer.name: layer.get_weights() for layer in q.layers}
    x = np.tile(images, (STEPS, 1, 1, 1)) * np.float32([[[[0.5]]]])
    q.fit(x, np.ones((len(x), 3)), batch_size=len(images), verbose=0, callbacks=callbacks)
    return {
        layer.name
        for layer in q.layers
        if any(not np.array_equal(*pair) for pair in zip(layer.get_weights(), before[layer.name], strict=True))
    }


@pytest.fixture(scope="module")
def photos():
    return np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3)).astype(np.float32)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("scheme", satkeras.SCHEMES)
def test_a_backbone_frozen_before_stays_to_the_bit(scheme, photos):
    model = float_model()
    for layer in model.layers[:-1]:
        layer.trainable = False
    q = quantized(model, scheme, photos)
    assert moved(q, photos) <= {"quant_head", "quant_head_output", "quant_head_input"}
    assert "quant_head" in moved(q, photos)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("scheme", satkeras.SCHEMES)
def test_layers_frozen_afterwards_stay_to_the_bit(scheme, photos):
    q = quantized(float_model(), scheme, photos)
    trained = moved(q, photos)
    assert {"quant_a", "a_norm", "quant_b", "b_norm", "quant_head"} <= trained
    for layer in q.layers:
        layer.trainable = layer.name == "quant_head"
    assert moved(q, photos) == {"quant_head"}


def test_a_sub_model_of_the_quantized_one_freezes_its_layers(photos):
    q = quantized(float_model(), "int8", photos)
    tf_keras.Model(q.input, q.get_layer("pool").output).trainable = False
    assert moved(q, photos) == {"quant_head", "quant_head_output"}


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    ("frozen", "stays"),
    [
        ({"a", "a_norm"}, {"quant_a", "a_norm", "quant_a_relu_output"}),
        ({"a_norm"}, {"a_norm"}),
        ({"b"}, {"quant_b", "quant_b_input"}),
        ({"a_relu"}, {"a_relu", "quant_a_relu_output"}),
        ({"head"}, {"quant_head", "quant_head_output"}),
    ],
)
def test_a_tensors_quantizer_is_frozen_with_the_layers_that_make_it(frozen, stays, photos):
    model = float_model()
    for layer in model.layers:
        layer.trainable = layer.name not in frozen
    q = quantized(model, "sat", photos)
    assert {layer.name for layer in q.layers if not layer.trainable} == stays
    kept = tf_keras.models.clone_model(q)
    assert {layer.name for layer in kept.layers if not layer.trainable} == stays


@pytest.mark.parametrize("scheme", ["sat", "int8"])
def test_a_block_called_in_inference_mode_keeps_ranges_and_statistics_and_trains_its_kernel(scheme, photos):
    inputs = tf_keras.Input((6, 6, 3), name="image")
    x = layers.Conv2D(4, 3, name="a")(inputs)
    x = layers.ReLU(name="a_relu")(layers.BatchNormalization(name="a_norm")(x, training=False))
    x = layers.Flatten(name="flat")(layers.Conv2D(4, 3, activation="relu", name="b")(x))
    model = tf_keras.Model(inputs, layers.Dense(3, name="head")(x))
    q = quantized(model, scheme, photos)
    norm, states = q.get_layer("a_norm"), q.get_layer("quant_a_relu_output").non_trainable_weights
    before = [variable.numpy() for variable in (norm.moving_mean, norm.moving_variance, *states)]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(q(photos, training=True) ** 2)
    names = [variable.name for variable in q.trainable_variables]
    gradients = dict(zip(names, tape.gradient(loss, q.trainable_variables), strict=True))
    assert all(np.any(gradients[f"{name}:0"]) for name in ("quant_a/kernel", "quant_a/bias", "a_norm/beta"))
    for variable, value in zip((norm.moving_mean, norm.moving_variance, *states), before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_a_frozen_range_that_no_data_set_is_refused_with_the_way_out(photos):
    model = float_model()
    for layer in model.layers[:-1]:
        layer.trainable = False
    q = satkeras.quantize_model(model, "int8")
    moved(q, photos)
    wrapper = next(layer for layer in q.layers if has_quantizer(layer) and layer.name == "quant_a_relu_output")
    with pytest.raises(ValueError, match="a frozen layer learns nothing.*calibration_data"):
        wrapper.quantize_config.quantizer.quant_params(wrapper._output_quantizer_vars)
