"""A range for all inputs, or for each its own, by name or key."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import satkeras
import tflite_export
from satkeras.calibration.input_ranges import input_quantizers
from satkeras.quantizers import InputQuantizer

RANGES = {"image": (0, 255), "sensor": (-4, 3.96875)}


def network(by_key=False):
    image, sensor = tf_keras.Input((6, 6, 3), name="image"), tf_keras.Input((6,), name="sensor_layer")
    features = layers.Conv2D(8, 3, activation="relu")(layers.Conv2D(4, 3, activation="relu")(image))
    features = layers.GlobalAveragePooling2D()(features)
    x = layers.Add()([features, layers.Dense(8, activation="relu")(sensor)])
    inputs = {"sensor": sensor, "image": image} if by_key else [image, sensor]
    return tf_keras.Model(inputs, layers.Dense(3)(x))


def examples():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (8, 6, 6, 3)).astype(np.float32), rng.normal(0, 1, (8, 6)).astype(np.float32)


@pytest.mark.parametrize("by_key", [False, True], ids=["names", "keys"])
def test_two_inputs_in_their_own_units_train_and_export(by_key, tmp_path):
    image, sensor = examples()
    sensor_name = "sensor" if by_key else "sensor_layer"
    data = {"image": image, sensor_name: sensor}
    ranges = {"image": RANGES["image"], sensor_name: RANGES["sensor"]}
    q = satkeras.quantize_model(network(by_key), input_range=ranges, calibration_data=data)
    q.compile("sgd", "mse")
    q.fit(data, np.zeros((8, 3)), verbose=0)
    found = {name: q.get_layer(f"quant_{name}_output").quantize_config.quantizer for name in ("image", "sensor_layer")}
    assert found == {"image": InputQuantizer(0.0, 255.0), "sensor_layer": InputQuantizer(-4.0, 3.96875)}
    report = tflite_export.export_tflite(q, tmp_path / "m.tflite", verify_data=data)
    assert report.verification.differing == 0


def test_each_input_is_checked_in_its_own_units():
    image, sensor = examples()
    for data in ([image / 255, sensor], [image, sensor * 100]):
        with pytest.raises(ValueError, match="^calibration_data is not what fit would take"):
            satkeras.quantize_model(
                network(), input_range={"image": (0, 255), "sensor_layer": (-4, 3.96875)}, calibration_data=data
            )


def test_thresholds_are_set_in_each_inputs_units():
    image, sensor = examples()
    ranges = {"image": (0, 255), "sensor_layer": (-4, 3.96875)}
    q = satkeras.quantize_model(network(), "qn", input_range=ranges)
    satkeras.set_thresholds(q, [image, sensor])
    with pytest.raises(ValueError, match="^data is not what fit would take"):
        satkeras.set_thresholds(q, [image, sensor * 100])


def test_one_range_is_for_all_inputs():
    assert set(input_quantizers((0, 1), network()).values()) == {InputQuantizer(0.0, 1.0)}


@pytest.mark.parametrize("given", [{"image": (0, 1)}, {"image": (0, 1), "picture": (0, 1)}, {}])
def test_an_input_without_a_range_is_named(given):
    with pytest.raises(ValueError, match=r"a range for each input, \{'image': \(0, 255\), 'sensor_layer': \(0, 255"):
        input_quantizers(given, network())
