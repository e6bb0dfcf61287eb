"""A stored pixel p is code p, in training and after it; wrong units never train in silence; strays do not stop it."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

import satkeras
import tflite_export
from satkeras.quantizers import InputQuantizer

MEAN, STD = 0.449, 0.226
# How images are prepared, and the range that says so.
PREPARED = {
    "as stored": (lambda p: p, (0.0, 255.0)),
    "/ 255": (lambda p: p / 255, (0.0, 1.0)),
    "/ 127.5 - 1": (lambda p: p / 127.5 - 1, (-1.0, 1.0)),
    "(- 128) / 128": (lambda p: (p - 128) / 128, (-1.0, 127 / 128)),
    "one mean and std": (lambda p: (p / 255 - MEAN) / STD, (-MEAN / STD, (1 - MEAN) / STD)),
    "mean of 0..255": (lambda p: (p - 117.3) / 64, (-117.3 / 64, (255 - 117.3) / 64)),
}
prepared = pytest.mark.parametrize(("prepare", "input_range"), PREPARED.values(), ids=PREPARED.keys())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "graph"])
@prepared
def test_every_pixel_is_its_own_code(prepare, input_range, compiled, training):
    quantizer = InputQuantizer(*input_range)
    x = prepare(np.arange(256, dtype=np.float32))
    call = tf.function(quantizer) if compiled else quantizer
    found = np.asarray(call(tf.constant(x), training, {}), np.float64) / quantizer._scale + quantizer.zero_point
    np.testing.assert_allclose(found, np.arange(256), atol=1e-3)
    assert abs(quantizer.shift) <= 0.501 * quantizer._scale


def network():
    inputs = tf_keras.Input((6, 6, 1), name="image")
    x = layers.Conv2D(2, 3, activation="relu", padding="same")(inputs)
    x = layers.Conv2D(2, 3, activation="relu")(x)
    return tf_keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


def pixels(count=32):
    return np.random.default_rng(0).integers(0, 256, (count, 6, 6, 1)).astype(np.float32)


@pytest.mark.thinned(3)
@prepared
def test_the_file_takes_stored_pixels(prepare, input_range, tmp_path):
    x = pixels()
    q = satkeras.quantize_model(network(), input_range=input_range, calibration_data=prepare(x))
    report = tflite_export.export_tflite(q, tmp_path / "m.tflite", verify_data=prepare(x))
    assert report.verification.differing == 0
    twin = tflite_export.integer_model(q)
    integers = [np.unique(twin(codes.astype(np.uint8))) for codes in (x, x[::-1])]
    assert all(len(one) > 1 for one in integers)
    if InputQuantizer(*input_range).shift:
        with pytest.raises(tflite_export.ExportError, match="input_type='float32' needs an input_range in which 0.0"):
            tflite_export.export_tflite(q, tmp_path / "f.tflite", input_type="float32")
    else:
        tflite_export.export_tflite(q, tmp_path / "f.tflite", input_type="float32", verify_data=False)


def test_values_between_all_codes_are_refused_with_the_range_that_fits():
    x = pixels() / 127.5 - 1
    with pytest.raises(ValueError, match=r"midway between two codes of .*: pass input_range=\(-1\.0, 1\.0\)"):
        satkeras.quantize_model(network(), input_range=(-256 / 255, 254 / 255), calibration_data=x)


@pytest.mark.parametrize("steps", [1, 2])
def test_strays_are_clipped_counted_and_told_once(steps, capfd):
    x = pixels()
    x[8:] *= 1.1  # brighter, not clipped
    q = satkeras.quantize_model(network())
    q.compile("sgd", "mse", steps_per_execution=steps)
    q.fit(x, np.zeros((32, 2)), batch_size=8, epochs=2, shuffle=False, verbose=0)
    (strays,) = (variable for variable in q.weights if "strays" in variable.name)
    assert int(strays) == 2 * np.sum(x > 256) > 0
    assert capfd.readouterr().err.count("values outside input_range=(0.0, 255.0); they are clipped") == 1


WRONG = {
    "a 255th": lambda x: x / 255,
    "times 100": lambda x: x * 100,
    "around zero": lambda x: x - 128,
    "NaN": lambda x: np.where(x == x.max(), np.nan, x),
}


@pytest.mark.thinned(3)
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("jit", [False, True])
def test_wrong_units_do_not_train_in_silence(jit, wrong):
    q = satkeras.quantize_model(network())
    q.compile("sgd", "mse", jit_compile=jit)
    y = np.zeros((32, 2))
    if jit:  # XLA has no errors
        assert np.isnan(q.fit(wrong(pixels()), y, verbose=0).history["loss"]).all()
    else:
        with pytest.raises(tf.errors.InvalidArgumentError, match="The input must"):
            q.fit(wrong(pixels()), y, verbose=0)


def test_missing_thresholds_do_not_train_in_silence_under_xla():
    q = satkeras.quantize_model(network(), "qn")
    q.compile("sgd", "mse", jit_compile=True)
    assert np.isnan(q.fit(pixels(), np.zeros((32, 2)), verbose=0).history["loss"]).all()
    q = satkeras.quantize_model(network(), "qn")
    satkeras.set_thresholds(q, pixels())
    q.compile("sgd", "mse", jit_compile=True)
    assert np.isfinite(q.fit(pixels(), np.zeros((32, 2)), verbose=0).history["loss"]).all()
