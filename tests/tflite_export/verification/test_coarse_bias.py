"""A step of a layer's sum that exceeds a step of its output: Keras and file still compute the same."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import satkeras
import tflite_export
from tflite_export.verification.interpreter import open_interpreter, run

CODES = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)
BIASES = np.array([-0.15, 1.0, 0.4, -40.2, 7.0])


def network(behind) -> tf_keras.Model:
    """Weights so large that every input but 0 reaches the ReLU's maximum; the bias alone decides about 0."""
    image = layers.Input((1, 1, 1), name="image")
    x = behind(layers.Conv2D(len(BIASES), 1, name="conv")(image))
    model = tf_keras.Model(image, layers.GlobalAveragePooling2D(name="mean")(x))
    model.get_layer("conv").set_weights([np.full((1, 1, 1, len(BIASES)), 40.0), BIASES])
    return model


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    "behind",
    [
        layers.ReLU(6.0),
        layers.ReLU(),
        lambda x: layers.ReLU(6.0)(layers.BatchNormalization(name="norm")(x)),
        lambda x: layers.MaxPooling2D(1)(layers.ReLU(6.0)(x)),
        lambda x: layers.ReLU(6.0)(layers.Add()([layers.ReLU(6.0)(x), x])),
    ],
    ids=["relu6", "relu", "norm", "pool", "sum"],
)
@pytest.mark.parametrize("bits", [8, 4])
def test_keras_predicts_what_the_file_does(behind, bits, tmp_path):
    images = CODES.astype(np.float32)
    model = satkeras.quantize_model(
        network(behind), "sat", weight_bits=8, activation_bits=bits, calibration_data=images[:6]
    )
    path = tmp_path / "net.tflite"
    report = tflite_export.export_tflite(model, path, verify_data=images)
    assert report.verification.differing == 0
    interpreter = open_interpreter(path.read_bytes())
    scale, zero_point = interpreter.get_output_details()[0]["quantization"]
    (levels,) = run(interpreter, CODES)
    real = scale * (levels.astype(np.float32) - zero_point)
    np.testing.assert_allclose(model.predict(images, verbose=0), real, atol=scale * 0.01)  # a hundredth of a level
