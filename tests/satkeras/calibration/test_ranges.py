"""Starting from a pretrained model: the function is kept, ranges and statistics come from data."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

import satkeras
from satkeras._compat import output_variables, weight_variables
from satkeras.calibration import ranges
from satkeras.models.insertion import quantizes_tensor


@pytest.fixture(scope="module")
def pretrained_weights():
    """Keeps the weights of `pretrained` from the first test that needs them."""
    return []


@pytest.fixture
def pretrained(residual_model, images, pretrained_weights):
    """A float model whose weights have scales of their own, and the statistics of its data."""
    if not pretrained_weights:
        rng = np.random.default_rng(3)
        for layer in residual_model.layers:
            if not isinstance(layer, layers.BatchNormalization):
                layer.set_weights([3 * values + rng.normal(0, 0.01, values.shape) for values in layer.get_weights()])
        residual_model.compile(tf_keras.optimizers.SGD(1e-4), "sparse_categorical_crossentropy")
        residual_model.fit(*images, epochs=300, batch_size=16, verbose=0)
        pretrained_weights.extend(residual_model.get_weights())
    residual_model.set_weights(pretrained_weights)
    return residual_model


def start_of(model, name, scheme):
    """What a layer's kernel starts as: its own, or with channels of one largest magnitude if a batch norm follows."""
    kernel = model.get_layer(name).get_weights()[0]
    if scheme not in ("sat", "pact", "dorefa") or f"{name}_bn" not in [layer.name for layer in model.layers]:
        return kernel
    channels = kernel.reshape(-1, 4)
    equal = channels / np.abs(channels).max(0)
    return (equal * np.sqrt(np.square(channels).mean() / np.square(equal).mean())).reshape(kernel.shape)


def relative_error(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("scheme", ["sat", "pact", "int8"])
def test_eight_bits_predict_what_the_float_model_does(scheme, pretrained, images):
    model = satkeras.quantize_model(pretrained, scheme, weight_bits=8, activation_bits=8, calibration_data=images[0])
    assert relative_error(model.predict(images[0], verbose=0), pretrained.predict(images[0], verbose=0)) < 0.1


@pytest.mark.thinned(3)
@pytest.mark.parametrize("scheme", satkeras.SCHEMES)
def test_quantized_kernels_start_at_the_pretrained_ones(scheme, pretrained, images):
    model = satkeras.quantize_model(pretrained, scheme, weight_bits=8, calibration_data=images[0])
    weights = satkeras.integer_weights(model)
    assert len(weights) == 5
    for name, weight in weights.items():
        kernel = start_of(pretrained, name.removeprefix("quant_"), scheme)
        step = np.max(weight.params.scale)
        assert np.abs(weight.params.dequantize(weight.integers) - kernel).max() <= 0.51 * step


@pytest.mark.parametrize("scheme", ["sat", "pact", "dorefa"])
def test_the_clamped_stage_computes_the_pretrained_function_and_hands_its_scales_on(scheme, pretrained, images):
    clamped = satkeras.quantize_model(
        pretrained, scheme, weight_bits=None, activation_bits=None, calibration_data=images[0]
    )
    for wrapper in filter(lambda layer: hasattr(layer, "quantize_config"), clamped.layers):
        kernel, quantizer, variables = weight_variables(wrapper)
        expected = start_of(pretrained, wrapper.layer.name, scheme)
        np.testing.assert_allclose(quantizer(kernel, False, variables), expected, rtol=1e-4, atol=1e-6)
    model = satkeras.quantize_model(clamped, scheme, weight_bits=8, activation_bits=8)
    for name in ("quant_stem", "quant_head"):
        _, _, before = weight_variables(clamped.get_layer(name))
        _, _, after = weight_variables(model.get_layer(name))
        assert float(before["magnitude"]) == float(after["magnitude"]) != 1.0


def test_every_range_is_of_the_data(pretrained, images):
    model = satkeras.quantize_model(pretrained, "sat", calibration_data=images[0])
    ranges = {
        layer.name: float(next(iter(variables.values())))
        for layer in model.layers
        if quantizes_tensor(layer) and (variables := output_variables(layer)[1]) and "strays" not in variables
    }
    assert len(ranges) >= 6
    assert all(value not in (0.0, 8.0, 10.0) for value in ranges.values())


def test_batch_norms_take_on_what_quantization_changed(pretrained, images):
    norm = pretrained.get_layer("stem_bn")
    # Not the statistics of the data: they stay as far from them as they were.
    norm.moving_mean.assign(norm.moving_mean + 3.0)
    norm.moving_variance.assign(norm.moving_variance * 2.0)
    model = satkeras.quantize_model(pretrained, "sat", weight_bits=2, calibration_data=images[0])

    def statistics(model, name):
        values = tf_keras.Model(model.inputs, model.get_layer(name).output).predict(images[0], verbose=0)
        return values.mean((0, 1, 2), np.float64), values.var((0, 1, 2), np.float64)

    (old_mean, old_variance), (mean, variance) = statistics(pretrained, "stem"), statistics(model, "quant_stem")
    found = model.get_layer("stem_bn")
    kernel = pretrained.get_layer("stem").get_weights()[0]
    factor = np.abs(start_of(pretrained, "stem", "sat") / kernel).max((0, 1, 2))
    np.testing.assert_allclose(found.moving_mean, factor * (norm.moving_mean - old_mean) + mean, rtol=1e-3, atol=1e-3)
    change = (variance / factor**2 + norm.epsilon) / (old_variance + norm.epsilon)
    expected = factor**2 * change * (norm.moving_variance + norm.epsilon) - norm.epsilon
    np.testing.assert_allclose(found.moving_variance, expected, rtol=1e-3)


def test_a_network_that_was_never_trained_takes_the_statistics_of_the_data(residual_model, images):
    norms = [layer.name for layer in residual_model.layers if isinstance(layer, layers.BatchNormalization)]
    model = satkeras.quantize_model(residual_model, "sat", calibration_data=images[0])
    assert norms
    for name in norms:
        values = tf_keras.Model(model.inputs, model.get_layer(name).output).predict(images[0], verbose=0)
        axes = tuple(range(values.ndim - 1))
        np.testing.assert_allclose(values.mean(axes, np.float64), 0, atol=1e-4)
        # Less than 1 by the batch norm's epsilon.
        np.testing.assert_allclose(values.var(axes, np.float64), 1, atol=0.05)


def test_batch_norms_that_only_scale_and_shift_stay(residual_model, images):
    # As converted from a framework that folds their statistics.
    rng = np.random.default_rng(0)
    norms = [layer for layer in residual_model.layers if isinstance(layer, layers.BatchNormalization)]
    for norm in norms:
        norm.gamma.assign(rng.uniform(0.5, 2, norm.gamma.shape))
    model = satkeras.quantize_model(
        residual_model, "int8", weight_bits=8, activation_bits=8, calibration_data=images[0]
    )
    found = model.predict(images[0], verbose=0)
    assert relative_error(found, residual_model.predict(images[0], verbose=0)) < 0.1


def test_a_dataset_starts_the_model_as_its_array_does(pretrained, images):
    batches = tf.data.Dataset.from_tensor_slices(images).batch(4)
    of_array, of_dataset = (satkeras.quantize_model(pretrained, calibration_data=x) for x in (images[0], batches))
    for found, expected in zip(of_dataset.get_weights(), of_array.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("scheme", ["sat", "pact", "int8"])
def test_at_8_bits_no_activation_is_clipped(scheme, pretrained, images):
    model = satkeras.quantize_model(pretrained, scheme, weight_bits=8, activation_bits=8, calibration_data=images[0])
    known = {layer.name for layer in pretrained.layers}
    for layer in model.layers:
        name = layer.name.removeprefix("quant_").removesuffix("_output")
        if quantizes_tensor(layer) and name in known and output_variables(layer)[0].num_bits == 8:
            values = tf_keras.Model(pretrained.inputs, pretrained.get_layer(name).output).predict(images[0], verbose=0)
            quantizer, variables = output_variables(layer)
            largest = float(quantizer.scale(variables)) * (quantizer.levels[1] - quantizer.zero_point)
            assert largest >= values.max() * 0.999


def test_many_batches_correct_what_one_does(pretrained, images, monkeypatch):
    found = []
    for size in (16, 2):
        monkeypatch.setattr(ranges, "batch_size_for", lambda model, size=size: size)
        found.append(satkeras.quantize_model(pretrained, "sat", calibration_data=images[0]))
    for norm in (layer for layer in found[0].layers if isinstance(layer, layers.BatchNormalization)):
        mean, variance = (np.stack([m.get_layer(norm.name).get_weights()[i] for m in found]) for i in (-2, -1))
        scale = np.sqrt(variance[0] + norm.epsilon)
        assert (np.abs(mean[1] - mean[0]) / scale).max() < 0.2
        assert (np.abs(variance[1] - variance[0]) / scale**2).max() < 0.3


def test_a_lone_bias_takes_up_what_rounding_changed(pretrained, images):
    model = satkeras.quantize_model(pretrained, "sat", weight_bits=2, calibration_data=images[0])
    kernel, bias = pretrained.get_layer("head").get_weights()
    read = tf_keras.Model(pretrained.inputs, pretrained.get_layer("add").output).predict(images[0], verbose=0)
    expected = (read @ kernel[0, 0] + bias).mean((0, 1, 2), np.float64)
    found = tf_keras.Model(model.inputs, model.get_layer("quant_head").output).predict(images[0], verbose=0)
    np.testing.assert_allclose(found.mean((0, 1, 2), np.float64), expected, rtol=1e-3, atol=1e-3)


def nan(x):
    return np.where(np.arange(x.size).reshape(x.shape) == 7, np.nan, x)


BAD_DATA = {
    "empty": (lambda x: x[:0], "at least one example"),
    "empty dataset": (lambda x: tf.data.Dataset.from_tensor_slices(x[:0]).batch(2), "at least one example"),
    "endless": (lambda x: tf.data.Dataset.from_tensor_slices(x).batch(2).repeat(), r"must end.*\.take\(n\)"),
    "rank": (lambda x: x[0], r"shape \(n, 8, 8, 3\)\. Received: shape \(8, 8, 3\)"),
    "size": (lambda x: x[:, 1:], r"shape \(n, 8, 8, 3\)\. Received: shape \(16, 7, 8, 3\)"),
    "dtype": (lambda x: x.astype(str), "real numbers. Received: dtype=<U"),
    "nan": (nan, "must be finite, within .* Received NaN or infinity"),
    "range": (lambda x: x * 2, r"within input_range=\(0.0, 255.0\): .* Received: values from 0 to 510"),
    "in other units": (lambda x: x / 255, r"not span a step or two of input_range=.* Received: values from 0 to 1$"),
    "negative": (lambda x: x - 128, r"within input_range=.*values from -128 to"),
    "too many inputs": (lambda x: [x, x], r"each of the 1 inputs \['image'\], without labels. Received: 2"),
    "names": (lambda x: {"picture": x}, r"keys \['image'\]\. Received: \['picture'\]"),
}


@pytest.mark.parametrize(("change", "match"), BAD_DATA.values(), ids=BAD_DATA.keys())
def test_bad_calibration_data(change, match, residual_model, images):
    with pytest.raises(ValueError, match=match):
        satkeras.quantize_model(residual_model, calibration_data=change(images[0]))


def test_calibration_data_of_no_kind(residual_model):
    with pytest.raises(TypeError, match="Received: str"):
        satkeras.quantize_model(residual_model, calibration_data="images")
