"""The default target's file, labels behind it, in the tools of LiteRT and on an emulated 64-bit Arm."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import tflite_export
from benchmarks import judges
from tflite_export.verification.interpreter import open_interpreter, run


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (4, 12, 12, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def path(trained, tmp_path_factory):
    image = layers.Input((12, 12, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    x = layers.Flatten()(layers.DepthwiseConv2D(3, activation="relu")(x))
    zebra, apple = layers.Dense(4, "softmax", name="zebra")(x), layers.Dense(3, name="apple")(x)
    model = trained(tf_keras.Model(image, [zebra, apple]))
    path = tmp_path_factory.mktemp("android") / "net.tflite"
    tflite_export.export_tflite(model, path, labels={"zebra": ["a", "b", "c", "d"]})
    return path


def test_a_signature_runner_calls_outputs_by_their_names_in_the_models_order(path, pixels):
    interpreter = open_interpreter(path.read_bytes())
    runner = interpreter.get_signature_runner("serving_default")
    assert list(runner.get_input_details()) == ["image"]
    found = runner(image=pixels[:1])
    zebra, apple = run(open_interpreter(path.read_bytes()), pixels)
    np.testing.assert_array_equal(found["zebra"], zebra[:1])
    np.testing.assert_array_equal(found["apple"], apple[:1])
    names = [detail["name"] for detail in interpreter.get_output_details()]
    assert names == ["zebra", "apple"]
    assert {detail["dtype"] for detail in interpreter.get_output_details()} == {np.uint8}


def test_litert_benchmark_takes_the_command_of_the_report(path, tmp_path):
    program = pathlib.Path(sys.executable).with_name("litert-benchmark")
    result = tmp_path / "result.json"
    options = ["--num_runs", "3", "--result_json", result]
    done = subprocess.run([program, "--model", path, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(result.read_text())


@pytest.mark.parametrize(
    "judge",
    [
        "default",
        *(pytest.param(name, marks=pytest.mark.judges) for name in ("arm", "arm_a53", "arm_x2")),
    ],
)
def test_every_processor_computes_the_same(judge, need, path, pixels):
    need(judge)
    expected = run(open_interpreter(path.read_bytes()), pixels)
    for found, one in zip(judges.run(judge, path.read_bytes(), [pixels]), expected, strict=True):
        np.testing.assert_array_equal(found, one)


@pytest.mark.judges
def test_an_old_runtime_runs_it(need, path, pixels):
    need("tflite_runtime")
    zebra, apple = judges.run("tflite_runtime", path.read_bytes(), [pixels])
    assert (zebra.dtype, zebra.shape, apple.shape) == (np.uint8, (4, 4), (4, 3))
