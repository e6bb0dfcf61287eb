"""TOSA's converter takes the files for it, and its reference model computes their twin's integers."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import tflite_export
from benchmarks import judges


@pytest.mark.judges
@pytest.mark.parametrize("bits", [8, 4])
def test_the_reference_model_computes_the_twins_integers(bits, need, trained, tmp_path):
    need("tosa")
    image = layers.Input((12, 12, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    y = layers.DepthwiseConv2D(3, padding="same", activation="gelu")(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 1, activation="relu")(layers.Add()([x, y])))
    model = trained(tf_keras.Model(image, layers.Dense(10)(x)), weight_bits=bits, activation_bits=bits)
    path = tmp_path / "net.tflite"
    tflite_export.export_tflite(model, path, target="tosa")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 12, 12, 3)).astype(np.uint8)
    (found,) = judges.run("tosa", path.read_bytes(), [(pixels.astype(np.int16) - 128).astype(np.int8)])
    expected = tflite_export.integer_model(model, kernels="tflm").predict(pixels, verbose=0)
    assert len(np.unique(expected)) > 10
    np.testing.assert_array_equal(found, expected)
