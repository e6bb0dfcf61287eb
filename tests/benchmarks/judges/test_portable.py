"""Portable files give the same integers, of every operator, on all judges."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import satkeras
import tflite_export
from benchmarks import judges
from benchmarks.portability import exposed
from tflite_export.file.writer import write_file
from tflite_export.lowering.lower import make_plan
from tflite_export.portability.plans import prove


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="module", params=[(4, 4), (2, 2), (8, 8)], ids=str)
def content(request):
    weight_bits, activation_bits = request.param
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((8, 8, 3))
    stream = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same", use_bias=False)(image)))
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu")(stream)
    x = layers.Add()([stream, layers.Conv2D(8, 1, use_bias=False)(x)])
    x = layers.Conv2DTranspose(4, 2, strides=2)(x)
    x = layers.Dense(5)(layers.GlobalAveragePooling2D()(layers.ReLU()(x)))
    widths = {"weight_bits": weight_bits, "activation_bits": activation_bits}
    model = satkeras.quantize_model(tf_keras.Model(image, x), calibration_data=images(50), **widths)
    plan = make_plan(tflite_export.portable_model(model))
    assert prove(plan).whole
    return exposed(write_file(plan))


def test_every_integer_is_that_of_litert_s_default(judge, content):
    inputs = [images(10).astype(np.uint8)]
    expected = judges.run("default", content, inputs)
    for found, its in zip(judges.run(judge, content, inputs), expected, strict=True):
        np.testing.assert_array_equal(found, its)
