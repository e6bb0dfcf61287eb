"""Clips and integers of tensors on data."""

import numpy as np
import pytest
import tf_keras as keras

import satkeras
from satkeras.reports.tensors import tensor_integers

IMAGES = np.random.default_rng(0).uniform(0, 255, (16, 8, 8, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    image = keras.Input((8, 8, 1))
    x = keras.layers.ReLU(name="relu")(keras.layers.Conv2D(4, 3, name="conv")(image))
    x = keras.layers.Conv2D(2, 3, name="last")(x)
    return satkeras.quantize_model(keras.Model(image, x), activation_bits=2, calibration_data=IMAGES)


def test_integers_and_clipped_share_are_those_of_numpy(model):
    found = tensor_integers(model, IMAGES)["quant_relu_output"]
    layer = model.get_layer("quant_relu_output")
    before = keras.Model(model.input, layer.input).predict(IMAGES, verbose=0)
    assert found.alpha == pytest.approx(float(layer.get_weights()[0]), rel=1e-6)
    assert found.clipped_share == pytest.approx(np.mean(before > found.alpha), abs=1e-3)
    levels = np.rint(np.clip(before, 0, found.alpha) / found.alpha * (len(found.counts) - 1))
    assert found.counts == {level: int(np.sum(levels == level)) for level in range(len(found.counts))}
    assert sum(found.counts.values()) == before.size


def test_every_quantized_tensor_is_there(model):
    names = {layer.name for layer in model.layers if layer.name.startswith("quant_") and "output" in layer.name}
    assert names <= set(tensor_integers(model, IMAGES))


def test_a_model_without_quantizers_is_refused():
    with pytest.raises(ValueError, match="tensor_integers"):
        tensor_integers(keras.Sequential([keras.layers.Dense(1, input_shape=(2,))]), np.zeros((1, 2)))
