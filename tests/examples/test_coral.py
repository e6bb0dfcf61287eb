"""Coral's example gives, with its default flags, what the file computes from the pixels themselves."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tf_keras
from PIL import Image
from tf_keras import layers

import satkeras
import tflite_export
from tflite_export.verification.interpreter import open_interpreter, run

PROGRAM = pathlib.Path("examples/coral/classify_image.py")
LABELS = ["apple", "pear", "plum", "fig", "quince"]


@pytest.fixture(scope="module")
def model():
    image = layers.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(16, 1, activation="relu")(x))
    kernel = tf_keras.initializers.RandomNormal(0, 3.0, seed=1)
    network = tf_keras.Model(image, layers.Dense(5, activation="softmax", kernel_initializer=kernel)(x))
    images = np.random.default_rng(0).uniform(0, 1, (16, 16, 16, 3)).astype(np.float32)
    return satkeras.quantize_model(network, input_range=(0, 1), calibration_data=images)


def answers(*arguments):
    command = [sys.executable, PROGRAM, *map(str, arguments), "--count=1", "--top_k=5"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    where, _, *lines = done.stdout.splitlines()
    assert where.startswith("on the")
    return dict(line.split(": ") for line in lines)


def test_the_default_flags_are_right_for_a_model_of_any_range(model, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (1, 16, 16, 3)).astype(np.uint8)
    pixels[..., 2] //= 4
    path, image = tmp_path / "net.tflite", tmp_path / "image.png"
    Image.fromarray(pixels[0]).save(image)
    tflite_export.export_tflite(model, path, target="coral", labels=LABELS, verify_data=False)
    (expected,) = run(open_interpreter(path.read_bytes()), pixels)
    assert len(np.unique(expected)) > 2
    shown = {label: f"{code / 256:.5f}" for label, code in zip(LABELS, expected[0], strict=True)}
    assert answers("--model", path, "--input", image) == shown
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\n")
    named = answers("--model", path, "--input", image, "--labels", tmp_path / "names.txt")
    assert named == dict(zip("abcde", shown.values(), strict=True))


def test_a_file_of_another_target_is_refused_with_the_one_that_works(model, tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "image.png")
    tflite_export.export_tflite(model, tmp_path / "net.tflite", input_type="int8", verify_data=False)
    command = [sys.executable, PROGRAM, "--model", tmp_path / "net.tflite", "--input", tmp_path / "image.png"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert 'export_tflite(target="coral")' in done.stderr
