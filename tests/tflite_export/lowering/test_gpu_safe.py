"""2x2 kernels with zeros compute what strided 1x1 ones do, and the report names both."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import tflite_export
from tflite_export.file.graph import stored_operators
from tflite_export.file.reader import read_model
from tflite_export.verification.interpreter import open_interpreter, run


@pytest.mark.thinned(2)
@pytest.mark.parametrize(("size", "strides"), [((8, 8), 2), ((9, 7), 2), ((8, 9), 3), ((10, 9), 3), ((9, 8), (2, 1))])
def test_the_integers_are_the_same(size, strides, trained, tmp_path):
    image = layers.Input((*size, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(image)
    x = layers.Conv2D(6, 1, strides=strides, activation="relu", name="shortcut")(x)
    model = trained(tf_keras.Model(image, layers.Conv2D(5, 1, name="head")(x)))
    found, pixels = {}, np.random.default_rng(0).integers(0, 256, (6, *size, 3)).astype(np.uint8)
    for gpu_safe in (False, True):
        path = tmp_path / "net.tflite"
        report = tflite_export.export_tflite(
            model, path, gpu_safe=gpu_safe, verify_data=pixels.astype(np.float32), output_type="int8"
        )
        assert report.verification.differing == 0
        kernels = [one.inputs[1].shape[1:3] for one in stored_operators(read_model(path.read_bytes())) if one.constants]
        found[gpu_safe] = report, kernels, run(open_interpreter(path.read_bytes()), pixels)[0]
    (before, ones, expected), (after, twos, levels) = found.values()
    assert (ones.count((1, 1)), twos.count((1, 1)), twos.count((2, 2))) == (2, 1, 1)
    assert len(np.unique(expected)) > 10
    np.testing.assert_array_equal(levels, expected)
    assert any("gpu_safe=True" in note and "shortcut" in note for note in before.target_notes)
    assert any("2x2 kernels with zeros" in note and "shortcut" in note for note in after.target_notes)
    assert not any("head" in note for note in (*before.target_notes, *after.target_notes))


def test_a_device_without_that_delegate_refuses_it(residual, tmp_path):
    with pytest.raises(
        ValueError, match=r"takes gpu_safe=False; True is for the targets \['android', 'litert-packed'\]"
    ):
        tflite_export.export_tflite(residual, tmp_path / "net.tflite", target="coral", gpu_safe=True)
