"""Integers chosen by the output of their layer."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import satkeras
import tflite_export
from satkeras import SCHEMES, QuantParams
from satkeras.calibration import rounding
from satkeras.calibration.rounding import integers_of

GRIDS = {
    "symmetric": QuantParams(np.float32(1), 0, -7, 7),
    "odd": QuantParams(np.float32(1), 0, -15, 15, spacing=2),
    "lopsided": QuantParams(np.float32(1), 0, -8, 7),
}


def error(rows, integers, weights):
    return np.linalg.norm(rows @ (integers - weights))


@pytest.mark.parametrize("grid", GRIDS)
def test_inputs_that_know_nothing_of_each_other_leave_every_weight_to_itself(grid):
    weights = np.random.default_rng(0).uniform(-17, 17, (6, 5))
    rows = np.eye(6) * np.arange(1, 7)
    np.testing.assert_array_equal(integers_of(rows, weights, GRIDS[grid]), GRIDS[grid].quantize(weights))


@pytest.mark.parametrize("grid", GRIDS)
def test_inputs_that_go_together_share_their_errors(grid):
    rng = np.random.default_rng(0)
    weights = rng.uniform(-6, 6, (20, 8))
    rows = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 20)) + 0.1 * rng.normal(size=(500, 20))
    chosen = integers_of(rows, weights, GRIDS[grid])
    nearest = GRIDS[grid].quantize(weights)
    assert error(rows, chosen, weights) < error(rows, nearest, weights) / 3
    np.testing.assert_array_equal(GRIDS[grid].quantize(chosen), chosen)


def test_two_equal_inputs_are_as_good_as_one_of_twice_the_levels():
    rows = np.ones((4, 2))
    chosen = integers_of(rows, np.array([[0.5 - 1e-3], [0.5 - 1e-3]]), GRIDS["symmetric"])
    assert chosen.sum() == 1, "nearest rounding makes two zeros"


def pretrained():
    """A network whose inputs go together, as images' do, with a layer of each kind."""
    model = tf_keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="conv"),
            layers.BatchNormalization(name="conv_bn"),
            layers.ReLU(name="relu"),
            layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise"),
            layers.Conv2D(8, 1, activation="relu", name="pointwise"),
            layers.Flatten(),
            layers.Dense(10, activation="relu", name="hidden"),
            layers.Dense(4, name="logits"),
        ]
    )
    model.get_layer("conv_bn").set_weights([np.full(8, 1.2), np.full(8, 0.4), np.full(8, 3.0), np.full(8, 400.0)])
    return model


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (64, 2, 2, 3)).repeat(4, 1).repeat(4, 2)
    return np.clip(coarse + rng.integers(-20, 20, (64, 8, 8, 3)), 0, 255).astype(np.float32)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_network_stays_closer_and_its_integers_on_their_grids(scheme, images):
    tf_keras.utils.set_random_seed(1)
    model = pretrained()
    expected = model.predict(images, verbose=0)
    nearest, chosen = (
        satkeras.quantize_model(model, scheme, weight_bits=3, activation_bits=8, calibration_data=images, rounding=way)
        for way in ("nearest", "output")
    )
    before, after = satkeras.integer_weights(nearest), satkeras.integer_weights(chosen)
    for name, weight in after.items():
        # SAT's rescale follows the deviation of the integers, which are others now.
        np.testing.assert_allclose(weight.params.scale, before[name].params.scale, rtol=0.05)
        found = weight.params.integers_of(weight.params.dequantize(weight.integers))
        np.testing.assert_array_equal(found, weight.integers)
    for name in ("quant_depthwise", "quant_pointwise"):
        changed = np.sum(after[name].integers != before[name].integers)
        assert (changed == 0) == (scheme == "qn"), "Quantization Networks' levels are not even"
    if scheme == "sat":
        errors = [np.abs(q.predict(images, verbose=0) - expected).mean() for q in (nearest, chosen)]
        assert errors[1] < 0.9 * errors[0], errors


def test_layers_that_read_too_much_are_left_alone(images, monkeypatch):
    model = pretrained()
    monkeypatch.setattr(rounding, "MOST_INPUTS", 26)
    nearest, chosen = (
        satkeras.integer_weights(satkeras.quantize_model(model, calibration_data=images, rounding=way))
        for way in ("nearest", "output")
    )
    same = {name for name in nearest if np.array_equal(nearest[name].integers, chosen[name].integers)}
    assert same == {"quant_conv", "quant_hidden"}


def test_a_kernel_of_zeros_and_inputs_of_zeros_are_no_harm(images):
    model = pretrained()
    model.get_layer("hidden").set_weights([np.zeros((128, 10)), -np.ones(10)])  # a ReLU makes zeros of it
    quantized = satkeras.quantize_model(model, calibration_data=images, rounding="output")
    assert np.isfinite(quantized.predict(images, verbose=0)).all()


def test_the_file_is_exact_and_training_goes_on(images, tmp_path):
    tf_keras.utils.set_random_seed(1)
    model = satkeras.quantize_model(pretrained(), calibration_data=images, rounding="output")
    report = tflite_export.export_tflite(model, tmp_path / "model.tflite", verify_data=images[:8])
    assert report.verification.differing == 0
    model.compile("sgd", "mse", run_eagerly=True)
    assert np.isfinite(model.train_on_batch(images[:8], np.zeros((8, 4))))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounding": "best"}, r"one of \('nearest', 'output'\)\. Received: rounding='best'"),
        ({"rounding": "output"}, r"quantize_model\(model, calibration_data=images, rounding='output'\)"),
    ],
)
def test_what_cannot_be_done_is_refused_first(options, message):
    with pytest.raises(ValueError, match=message):
        satkeras.quantize_model(pretrained(), **options)
