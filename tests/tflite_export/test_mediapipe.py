"""MediaPipe's own tasks take the files, and answer what LiteRT computes."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import tflite_export
from tflite_export.verification.interpreter import open_interpreter, run

LABELS = ["apple", "pear", "plum", "fig", "quince"]


@pytest.fixture(scope="module")
def classifier(trained):
    image = layers.Input((12, 12, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(16, 1, activation="relu")(x))
    kind = layers.Dense(5, "softmax", kernel_initializer=tf_keras.initializers.RandomNormal(0, 0.05), name="kind")(x)
    return trained(tf_keras.Model(image, kind))


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(0)
    return np.uint8(rng.integers(0, 256, (8, 12, 12, 3)) * rng.uniform(0, 1, (8, 1, 1, 3)))


@pytest.mark.judges
@pytest.mark.parametrize("output_type", ["uint8", "float32"])
def test_the_image_classifier_names_the_classes(ask, classifier, pixels, tmp_path, output_type):
    path = tmp_path / "net.tflite"
    tflite_export.export_tflite(classifier, path, labels=LABELS, output_type=output_type)
    (scores,) = run(open_interpreter(path.read_bytes()), pixels)
    expected = np.float64(scores) / (256 if output_type == "uint8" else 1)
    assert len(np.unique(expected)) > 5
    for categories, row in zip(ask("mediapipe", path.read_bytes(), [pixels]), expected, strict=True):
        assert sorted(index for index, _, _ in categories) == list(range(5))
        for index, name, score in categories:
            assert (name, score) == (LABELS[index], row[index])


@pytest.mark.judges
def test_the_image_embedder_gives_the_outputs(ask, classifier, pixels, tmp_path):
    path = tmp_path / "net.tflite"
    tflite_export.export_tflite(classifier, path)
    (values,) = run(open_interpreter(path.read_bytes()), pixels)
    embeddings = ask("mediapipe", path.read_bytes(), [pixels], ["--task=embedder"])
    np.testing.assert_array_equal(embeddings, values / 256)
