"""Coral's preprocessing gives every pixel its own code, and the file computes what it did on its own grid."""

import collections

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import tflite_export
from tflite_export.verification.interpreter import open_interpreter, run


def classify_image_preprocessing(image, interpreter, mean=128.0, std=128.0):
    """As google-coral/pycoral's examples/classify_image.py does it, line by line."""
    (details,) = interpreter.get_input_details()
    assert details["dtype"] == np.uint8
    scale, zero_point = details["quantization"]
    if abs(scale * std - 1) < 1e-5 and abs(mean - zero_point) < 1e-5:
        return image
    normalized = (np.asarray(image) - mean) / (std * scale) + zero_point
    np.clip(normalized, 0, 255, out=normalized)
    return normalized.astype(np.uint8)


def convolved(image):
    x = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(image)
    return layers.Conv2D(2, 1)(x)


def padded_and_pooled(image):
    """The input is read by a PAD, a kernel, and an operator that keeps its own scale."""
    x = layers.Conv2D(4, 3, activation="relu")(layers.ZeroPadding2D(2)(image))
    y = layers.Conv2D(4, 1, activation="relu")(layers.MaxPooling2D(2)(image))
    return layers.Concatenate()(
        [layers.Flatten()(x), layers.Flatten()(y), layers.Flatten()(layers.Conv2D(2, 3)(image))]
    )


CASES = [
    *((convolved, input_range) for input_range in [(0, 255), (0, 1), (-1, 1), (-1, 127 / 128), (-2.3, 5)]),
    *((padded_and_pooled, input_range) for input_range in [(0, 1), (-1, 1)]),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0].__name__}{case[1]}")
def files(request, trained, tmp_path_factory):
    """The bytes and the report of the file for Android and of that for Coral, and the input range."""
    network, (low, high) = request.param
    image = layers.Input((8, 8, 3), name="image")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3))
    images = (pixels / 255 * (high - low) + low).astype(np.float32)
    model = trained(tf_keras.Model(image, network(image)), images=[images], input_range=(low, high))
    path = tmp_path_factory.mktemp("files") / "net.tflite"
    found = {}
    for target in ("android", "coral"):
        report = tflite_export.export_tflite(model, path, target=target, verify_data=images)
        found[target] = path.read_bytes(), report
    return found, (low, high)


def test_every_pixel_value_reaches_its_code(files):
    content, report = files[0]["coral"]
    pixels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(classify_image_preprocessing(pixels, open_interpreter(content)), pixels)
    assert report.verification.differing == 0
    assert report.verification.worst_layer_share < 0.01


@pytest.mark.parametrize("kernels", ["xnnpack", "reference"])
def test_the_integers_are_those_of_the_file_on_its_own_grid(files, kernels):
    pixels = np.random.default_rng(1).integers(0, 256, (10, 8, 8, 3)).astype(np.uint8)
    own, moved = (files[0][target][0] for target in ("android", "coral"))
    (expected,), (found,) = (run(open_interpreter(content, kernels), pixels) for content in (own, moved))
    assert len(np.unique(expected)) > 10
    np.testing.assert_array_equal(found, expected)


def test_what_it_costs(files):
    reports, input_range = files
    own, moved = (reports[target][1].operators for target in ("android", "coral"))
    added = collections.Counter(moved) - collections.Counter(own)
    is_at_zero = input_range in [(-1, 1), (-1, 127 / 128)]  # its zero point is 128 already
    keeps_its_scale = "MAX_POOL_2D" in moved
    assert added == {**({} if is_at_zero else {"ADD": 1}), **({"MUL": 1} if keeps_its_scale else {})}
