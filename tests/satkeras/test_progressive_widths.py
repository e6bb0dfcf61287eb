"""Widths that shrink step by step: `quantize_model` on a quantized model."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import tflite_export
from satkeras import SCHEMES, quantize_model, set_thresholds
from satkeras._compat import output_variables, weight_variables
from satkeras.models.insertion import has_quantizer, quantizes_tensor


@pytest.fixture
def trained(residual_model, images):
    """A function for a model of 8 bits after an epoch."""

    def trained(scheme):
        model = quantize_model(residual_model, scheme, weight_bits=8, activation_bits=8)
        model.compile(tf_keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", run_eagerly=True)
        model.fit(*images, batch_size=8, epochs=1, shuffle=False, verbose=0)
        return model

    return trained


@pytest.mark.thinned(2)
@pytest.mark.parametrize("scheme", sorted(set(SCHEMES) - {"qn"}))
def test_all_that_was_learned_goes_over(scheme, trained):
    before = trained(scheme)
    weights = {variable.name: variable.numpy() for variable in before.weights}
    after = quantize_model(before, scheme, weight_bits=4, activation_bits=4)
    new, changed = set(), set()
    for variable in after.weights:
        if variable.name not in weights:
            new.add(variable.name)
        elif not np.array_equal(variable, weights[variable.name]):
            changed.add(variable.name.rsplit("_", 1)[-1])
    assert changed == ({"step:0"} if scheme == "lsq" else set())
    # Of 8 bits, a stream and its branch have one quantizer.
    assert {name.split("/")[0] for name in new} <= {
        "quant_stem_relu_output",
        "quant_conv_input",
        "quant_add_output",
        "quant_head_input",
    }
    for variable in before.weights:  # which stays as it was
        np.testing.assert_array_equal(variable, weights[variable.name])
    widths = {
        layer.quantize_config.quantizer.num_bits
        for layer in after.layers
        if has_quantizer(layer) and not quantizes_tensor(layer)
    }
    assert widths == {4, 8}  # the first and last layer keep 8


@pytest.mark.parametrize("scheme", ["sat", "pact"])
def test_a_branch_takes_the_clip_of_its_stream(scheme, trained):
    before = trained(scheme)
    output_variables(before.get_layer("quant_stem_relu_output"))[1]["alpha"].assign(3.0)
    after = quantize_model(before, scheme, activation_bits=4)
    clips = [
        float(output_variables(model.get_layer(name))[1]["alpha"])
        for model, name in ((before, "quant_stem_relu_output"), (after, "quant_conv_input"))
    ]
    assert clips == [3.0, 3.0]


def test_steps_grow_with_the_root_of_the_levels(trained):
    before, after = trained("lsq"), None
    after = quantize_model(before, "lsq", weight_bits=4, activation_bits=8)
    layer = "quant_conv"
    old, new = (float(weight_variables(model.get_layer(layer))[2]["step"]) for model in (before, after))
    assert new == pytest.approx(old * (127 / 7) ** 0.5, rel=1e-6)
    old, new = (float(output_variables(m.get_layer("quant_conv_relu_output"))[1]["step"]) for m in (before, after))
    assert new == old


def test_from_8_to_5_to_4_bits_and_a_file(trained, images, tmp_path):
    model = trained("sat")
    for bits in (5, 4):
        model = quantize_model(model, "sat", weight_bits=bits, activation_bits=bits)
        model.compile(tf_keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", run_eagerly=True)
        model.fit(*images, batch_size=8, epochs=1, shuffle=False, verbose=0)
    report = tflite_export.export_tflite(model, tmp_path / "model.tflite", verify_data=images[0])
    assert report.verification.differing == 0


def test_the_next_width_predicts_nearly_the_same(residual_model, images):
    before = quantize_model(residual_model, "sat", weight_bits=8, activation_bits=8, calibration_data=images[0])
    after = quantize_model(before, "sat", weight_bits=6, activation_bits=6)
    fresh = quantize_model(residual_model, "sat", weight_bits=6, activation_bits=6)
    expected, found, other = (model.predict(images[0], verbose=0) for model in (before, after, fresh))
    assert np.abs(found - expected).mean() < 0.3 * np.abs(other - expected).mean()


def test_data_set_the_ranges_anew(trained, images):
    before = trained("sat")
    after = quantize_model(before, "sat", calibration_data=images[0])
    alphas = [float(output_variables(m.get_layer("quant_conv_relu_output"))[1]["alpha"]) for m in (before, after)]
    assert alphas[0] != alphas[1]
    kernels = [weight_variables(model.get_layer("quant_conv"))[0].numpy() for model in (before, after)]
    np.testing.assert_array_equal(*kernels)


def test_frozen_layers_stay_frozen(trained):
    before = trained("sat")
    before.get_layer("quant_conv").trainable = False
    assert not quantize_model(before, "sat").get_layer("quant_conv").trainable


def test_quantization_networks_finds_the_levels_anew(residual_model, images):
    before = quantize_model(residual_model, "qn", weight_bits="3bit+-4", activation_bits=2, calibration_data=images[0])
    set_thresholds(before, images[0])
    after = quantize_model(before, "qn", weight_bits="ternary", activation_bits=2)
    kernel, quantizer, variables = weight_variables(after.get_layer("quant_conv"))
    np.testing.assert_array_equal(kernel, weight_variables(before.get_layer("quant_conv"))[0])
    assert variables["thresholds"].shape == (2,)
    assert set(np.unique(quantizer.integers(kernel, variables))) == {-1.0, 0.0, 1.0}
    thresholds = [
        output_variables(model.get_layer("quant_depthwise_input"))[1]["thresholds"] for model in (before, after)
    ]
    np.testing.assert_array_equal(*thresholds)


def test_another_input_range_is_refused(residual_model):
    before = quantize_model(residual_model, "sat", input_range=(-1, 1))
    with pytest.raises(ValueError, match=r"trained with input_range=\(-1.0, 1.0\). Received: input_range=\(0.0, 255.0"):
        quantize_model(before, "sat")
    quantize_model(before, "sat", input_range=(-1, 1))


def test_averages_of_latent_weights_are_rounded_once(quantized, images):
    """Keras' own `use_ema`: after `fit` the integers are those of the averaged latent weights."""
    model = quantized("sat")
    optimizer = tf_keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.5)
    kernels = [weight_variables(layer) for layer in filter(has_quantizer, model.layers) if weight_variables(layer)]
    averages = [latent.numpy() for latent, *_ in kernels]
    last = []

    class Averages(tf_keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            last[:] = [latent.numpy() for latent, *_ in kernels]
            averages[:] = [0.5 * mean + 0.5 * now for mean, now in zip(averages, last, strict=True)]

    model.compile(optimizer, "sparse_categorical_crossentropy")
    model.fit(*images, batch_size=4, epochs=2, shuffle=False, verbose=0, callbacks=[Averages()])
    differing = 0
    for (latent, quantizer, variables), mean, now in zip(kernels, averages, last, strict=True):
        np.testing.assert_allclose(latent, mean, rtol=1e-5, atol=1e-6)
        found = quantizer.integers(latent, variables)
        np.testing.assert_array_equal(found, quantizer.integers(tf.constant(latent.numpy()), variables))
        differing += np.count_nonzero(found != quantizer.integers(tf.constant(now), variables))
    assert differing  # the average is not the last network
