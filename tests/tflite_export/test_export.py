"""Tests of `export_tflite` and `integer_model`: their arguments, and that a file appears whole or not at all."""

import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

import satkeras
import tflite_export
from satkeras.quantizers import DoReFaWeightQuantizer, SATWeightQuantizer
from tflite_export.verification.interpreter import open_interpreter, run


@pytest.fixture(scope="module")
def images(residual, random_images):
    return random_images(residual, 10)[0]


def test_what_is_written_computes_what_the_integer_model_computes(residual, images, tmp_path):
    path = tmp_path / "net.tflite"
    report = tflite_export.export_tflite(residual, path, output_type="int8", verify_data=False)
    codes = images.astype(np.uint8)
    (levels,) = run(open_interpreter(path.read_bytes()), codes)
    np.testing.assert_array_equal(tflite_export.integer_model(residual).predict(codes, verbose=0), levels)
    assert report.file_bytes == path.stat().st_size
    assert report.verification is None
    assert report.path == str(path)
    assert report.operators["CONV_2D"] == 3
    assert report.operators["MUL"] == 2  # from the residual stream's 8 bits to a convolution's 4; no weights
    assert report.weight_bytes == 3 * 3 * 3 * 8 + 3 * 3 * 8 + 8 * 8 + 3 * 3 * 8 * 12 + 12 * 10


@pytest.mark.parametrize(
    "as_data",
    [
        lambda images: images,
        lambda images: [images],
        lambda images: images.astype(np.uint8),
        lambda images: {"image": images},
        lambda images: tf.data.Dataset.from_tensor_slices(images).batch(4),
        lambda images: tf.data.Dataset.from_tensor_slices({"image": images}).batch(4),
        lambda images: tf.data.Dataset.from_tensor_slices((images, np.arange(10))).batch(4),
    ],
    ids=["array", "list", "uint8", "dict", "dataset", "dataset of dicts", "labelled"],
)
def test_verify_data(residual, images, tmp_path, as_data):
    report = tflite_export.export_tflite(residual, tmp_path / "net.tflite", verify_data=as_data(images))
    assert report.verification.images == 10
    assert report.verification.differing == 0


@pytest.mark.parametrize("types", [("uint8", "uint8"), ("int8", "float32"), ("float32", "int8")])
def test_types(residual, images, tmp_path, types):
    path = tmp_path / "net.tflite"
    report = tflite_export.export_tflite(residual, path, verify_data=images, input_type=types[0], output_type=types[1])
    interpreter = open_interpreter(path.read_bytes())
    assert interpreter.get_input_details()[0]["dtype"] == np.dtype(types[0])
    assert interpreter.get_output_details()[0]["dtype"] == np.dtype(types[1])
    assert report.verification.differing == 0


def test_every_step_of_an_input_range_has_its_code(trained, tmp_path):
    model = tf_keras.Sequential([layers.Input((6, 6, 3)), layers.Conv2D(4, 3, activation="relu"), layers.Conv2D(2, 1)])
    images = (np.random.default_rng(0).integers(0, 256, (6, 6, 6, 3)) / np.float32(128) - 1).astype(np.float32)
    quantized = trained(model, images=[images], input_range=(-1, 127 / 128))
    report = tflite_export.export_tflite(quantized, tmp_path / "net.tflite", verify_data=images)
    assert report.verification.differing == 0
    assert report.verification.worst_layer_share < 0.01


def test_a_model_that_cannot_be_exported_leaves_nothing(trained, residual_model, tmp_path):
    quantized = trained(residual_model, activation_bits=None)
    with pytest.raises(tflite_export.ExportError):
        tflite_export.export_tflite(quantized, tmp_path / "net.tflite")
    with pytest.raises(tflite_export.ExportError):
        tflite_export.integer_model(quantized)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("broken", ["replace", "fsync", "chmod"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_export_leaves_the_old_file(residual, tmp_path, monkeypatch, broken, error):
    path = tmp_path / "net.tflite"
    path.write_bytes(b"old")

    def fail(*_):
        raise error

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(type(error)):
        tflite_export.export_tflite(residual, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_has_the_rights_of_any_other(residual, tmp_path):
    path, other = tmp_path / "net.tflite", tmp_path / "other"
    other.touch()
    path.write_bytes(b"old")
    tflite_export.export_tflite(residual, path)
    assert path.stat().st_mode == other.stat().st_mode
    assert path.read_bytes()[4:8] == b"TFL3"
    assert set(tmp_path.iterdir()) == {path, other}


def test_exporting_does_not_change_the_model(residual, images, tmp_path):
    weights, answer = residual.get_weights(), residual.predict(images, verbose=0)
    tflite_export.export_tflite(residual, tmp_path / "a.tflite", verify_data=images)
    tflite_export.export_tflite(residual, tmp_path / "b.tflite")
    assert all(np.array_equal(*pair) for pair in zip(weights, residual.get_weights(), strict=True))
    np.testing.assert_array_equal(residual.predict(images, verbose=0), answer)
    assert (tmp_path / "a.tflite").read_bytes() == (tmp_path / "b.tflite").read_bytes()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_model_that_trained_in_mixed_precision_has_a_file(policy, random_images, tmp_path):
    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        image = tf_keras.Input((8, 8, 3), name="image")
        x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, use_bias=False, name="stem")(image))
        x = layers.Conv2D(4, 3, activation="relu", name="middle")(layers.ReLU(name="relu")(x))
        x = layers.Dense(5, name="logits")(layers.Flatten(name="flat")(x))
        kind = layers.Activation("softmax", dtype="float32", name="kind")(x)
        model = satkeras.quantize_model(tf_keras.Model(image, kind))
        images = random_images(model, 16)
        model.compile(tf_keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
        model.fit(images, np.arange(16) % 5, epochs=2, verbose=0)
        report = tflite_export.export_tflite(model, tmp_path / "net.tflite", verify_data=images)
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    # The training model computes with 8 or 11 bits of mantissa; the twin and the file compute integers.
    assert report.verification.differing == 0


@pytest.mark.parametrize("bits", [8, 4])
def test_layers_that_are_called_twice(bits, tmp_path):
    left, right = (tf_keras.Input((8, 8, 3), name=name) for name in ("left", "right"))
    shared = [
        layers.Conv2D(4, 3, activation="relu", name="convolution"),
        layers.DepthwiseConv2D(3, activation="relu", name="depthwise"),
        layers.Flatten(name="flat"),
        layers.Dense(6, activation="relu", name="dense"),
    ]
    ends = []
    for x in (left, right):
        for layer in shared:
            x = layer(x)
        ends.append(x)
    float_model = tf_keras.Model([left, right], layers.Dense(2, name="logits")(layers.Add(name="sum")(ends)))
    data = [np.random.default_rng(seed).integers(0, 256, (8, 8, 8, 3)).astype(np.float32) for seed in (0, 1)]
    model = satkeras.quantize_model(float_model, weight_bits=bits, activation_bits=bits, calibration_data=data)
    report = tflite_export.export_tflite(model, tmp_path / "net.tflite", verify_data=data)
    assert report.operators["CONV_2D"] == 2
    assert report.verification.differing == 0


@pytest.mark.thinned(2)
@pytest.mark.parametrize("grid", ["odd", "centred"])
@pytest.mark.parametrize("bits", [2, 5])
def test_grids_of_odd_integers_have_files(grid, bits, residual_model, chain):
    """The centred grid has the odd grid's integers, and another scale."""
    scheme = dataclasses.replace(
        satkeras.SCHEMES["sat"],
        weights=DoReFaWeightQuantizer(grid=grid),
        lone_weights=SATWeightQuantizer(grid=grid),
        first_layer_bits=None,
        last_layer_bits=None,
    )
    verification = chain(residual_model, scheme=scheme, weight_bits=bits, activation_bits=4)
    assert verification.differing == 0
