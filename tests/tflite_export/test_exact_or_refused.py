"""What is beyond int32, and what is put behind a trained model: exact in the file, or refused with the way out."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import satkeras
import tflite_export
from tests.tflite_export.strangers import IMAGES, assert_refused, quantized
from tflite_export import ExportError
from tflite_export.lowering.lower import make_plan

# Sums that int32 does not hold.


def test_sums_beyond_int32(tmp_path):
    image = layers.Input((160, 160, 3), name="image")
    model = tf_keras.Model(image, layers.Dense(2, name="d")(layers.Flatten()(image)))
    model.get_layer("d").kernel.assign(np.tile([[0.01, -0.01]], (160 * 160 * 3, 1)))
    images = np.stack([np.full((160, 160, 3), value, np.float32) for value in (0, 100, 255)])
    int8 = {"weight_bits": 8, "activation_bits": 8, "calibration_data": images}
    refused = satkeras.quantize_model(model, "int8", **int8)
    with pytest.raises(ExportError, match=r"can reach 2,48\d,\d{3},\d{3} .* wrap beyond .*: shrink its input"):
        tflite_export.export_tflite(refused, tmp_path / "net.tflite")
    # The way out that the error names.
    pooled = tf_keras.Model(image, layers.Dense(2, name="d")(layers.Flatten()(layers.AveragePooling2D(2)(image))))
    report = tflite_export.export_tflite(
        satkeras.quantize_model(pooled, "int8", **int8), tmp_path / "net.tflite", verify_data=images
    )
    assert report.verification.differing == 0


# What is put behind a trained model.


@pytest.mark.parametrize("name", ["relu", "softmax"])
def test_an_activation_behind_the_model_is_in_the_file(name, exported):
    model = quantized()
    longer = tf_keras.Model(model.inputs, layers.Activation(name, name="last")(model.output))
    found = exported(longer)
    assert found.tensors[-1].operator == {"relu": "MAXIMUM", "softmax": "SOFTMAX"}[name]
    assert found.tensors[-1].layer_differs == 0
    # It does something: half of what was there before is cut off, or all of it turned into probabilities.
    before, after = (one.predict(IMAGES, verbose=0) for one in (model, longer))
    assert before.min() < 0 <= after.min()
    values = tflite_export.integer_model(longer).predict(IMAGES.astype(np.uint8), verbose=0)
    assert len(np.unique(values)) > 1


def test_a_capped_relu_behind_the_model_ends_on_a_level(exported, tmp_path):
    model = quantized()
    (logits,) = make_plan(model).outputs
    step = logits.step
    cap = 3 * step

    def longer(ceiling):
        return tf_keras.Model(model.inputs, layers.ReLU(ceiling, name="last")(model.output))

    found = exported(longer(cap))
    assert [tensor.operator for tensor in found.tensors[-2:]] == ["MINIMUM", "MAXIMUM"]
    assert model.predict(IMAGES, verbose=0).max() > cap
    values = tflite_export.integer_model(longer(cap)).predict(IMAGES.astype(np.uint8), verbose=0)
    assert values.max() == logits.zero_point + 3
    beyond = exported(longer(300 * step))
    assert [tensor.operator for tensor in beyond.tensors[-2:]].count("MINIMUM") == 0
    assert_refused(longer(2.5 * step), tmp_path, "is no level of its input's grid: quantize the tensor after it")


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    "last",
    [
        layers.Activation("sigmoid"),
        layers.Activation("tanh"),
        layers.Softmax(),
        layers.UnitNormalization(),
        layers.ReLU(),
        layers.Reshape((1, 3)),
    ],
    ids=lambda layer: layer.name,
)
def test_a_sequential_around_the_model_is_one_file(last, tmp_path):
    longer = tf_keras.Sequential([quantized(), type(last).from_config(last.get_config())])
    found = tflite_export.export_tflite(longer, tmp_path / "model.tflite", verify_data=IMAGES).verification
    assert found.differing == 0
    assert found.tensors[-1].name == last.name
    values = tflite_export.integer_model(longer).predict(IMAGES.astype(np.uint8), verbose=0)
    assert values.shape == longer.predict(IMAGES, verbose=0).shape


@pytest.mark.parametrize(
    ("last", "problem"),
    [
        (
            layers.Activation("gelu", name="last"),
            "last has no quantizer: put every layer .* before quantize_model",
        ),
        (layers.Activation("swish", name="last"), "the activation 'swish' needs quantizers of its own: put it"),
        (layers.LeakyReLU(name="last"), "no operator for LeakyReLU here: put it into the model before quantize_model"),
        (layers.Dense(2, name="last"), "last: last has no quantizer: put every layer .* before quantize_model"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("sequential", [False, True])
def test_what_needs_a_quantizer_behind_the_model_is_refused(last, problem, sequential, tmp_path):
    model, last = quantized(), type(last).from_config(last.get_config())
    longer = tf_keras.Sequential([model, last]) if sequential else tf_keras.Model(model.inputs, last(model.output))
    assert_refused(longer, tmp_path, problem)


def test_an_operator_around_the_model_is_refused(tmp_path):
    longer = tf_keras.Sequential([quantized(), layers.Lambda(lambda x: 2 * x, name="twice")])
    with pytest.raises(ValueError, match="must be layers.*'twice/.*put them into the float model"):
        tflite_export.export_tflite(longer, tmp_path / "model.tflite")
    with pytest.raises(ValueError, match=r"which holds the quantized .*pass model.get_layer\('"):
        satkeras.summary(longer)
