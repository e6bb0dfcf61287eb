"""The examples for TensorFlow Lite Micro, in C++ and in Python, compute the twin's integers."""

import os
import pathlib
import subprocess

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import satkeras
import tflite_export
from benchmarks.judges import environments

FOLDER = pathlib.Path("examples/micro")
PIXELS = np.random.default_rng(1).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
CODES = (PIXELS.astype(np.int16) - 128).astype(np.int8)


@pytest.fixture(scope="module", params=["none", "lut"])
def written(request, tmp_path_factory):
    """The file's path, and the integers of its twin."""
    image = layers.Input((16, 16, 3), name="image")
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(image)
    x = layers.Conv2D(32, 3, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(32, 3, activation="relu")(x))
    model = satkeras.quantize_model(
        tf_keras.Model(image, layers.Dense(10)(x)),
        weight_bits=4,
        activation_bits=4,
        calibration_data=PIXELS.astype(np.float32),
    )
    path = tmp_path_factory.mktemp("micro") / "model.tflite"
    report = tflite_export.export_tflite(model, path, target="micro", compress=request.param, verify_data=False)
    assert ("AddDecode" in path.with_suffix(".h").read_text()) == (request.param == "lut"), report
    return path, tflite_export.integer_model(model, kernels="tflm").predict(PIXELS, verbose=0)


def numbers(printed):
    return [[int(number) for number in line.split()] for line in printed.splitlines() if ":" not in line]


@pytest.mark.judges
def test_in_python(need, written):
    need("tflm")
    path, expected = written
    np.save(path.with_suffix(".npy"), CODES)
    command = [environments.python("tflm"), FOLDER / "run.py", path, path.with_suffix(".npy")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(numbers(done.stdout), expected)
    assert f"largest: {int(expected[0].argmax())}" in done.stdout


@pytest.mark.judges
def test_in_c_plus_plus(written, tmp_path):
    if "TFLM_MAKE" not in os.environ:
        pytest.skip(
            "TFLM_MAKE must have the variables of examples/micro/Makefile, such as TFLM=DIR: no sources are here"
        )
    path, expected = written
    program = tmp_path / "run_model"
    variables = [f"MODEL={path.with_suffix('')}", *os.environ["TFLM_MAKE"].split(";")]
    made = subprocess.run(
        ["make", "-B", "-C", FOLDER, f"PROGRAM={program}", *variables], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    done = subprocess.run([program], input=CODES.tobytes(), capture_output=True)
    np.testing.assert_array_equal(numbers(done.stdout.decode()), expected)
