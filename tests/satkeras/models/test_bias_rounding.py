"""At inference a model computes with whole biases, in steps of input scale times weight scale, as the file does."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

from satkeras import integer_weights, quantize_model
from satkeras._compat import output_variables
from satkeras.models.insertion import quantizes_tensor

BLACK = np.zeros((1, 6), np.float32)


@pytest.fixture
def biased():
    """A 2-bit dense layer with biases of a few steps, and maybe a batch norm; and the size of such a step."""

    def biased(*norm):
        model = quantize_model(
            tf_keras.Sequential([layers.Dense(5, name="fc", input_shape=(6,)), *norm]),
            overrides={"fc": {"weight_bits": 2}},
        )
        weight = integer_weights(model)["quant_fc"]
        # Integers -3 .. 3 become -126 .. 126 in the file; the input's scale is 1.
        step = float(weight.params.scale) / 42
        model.get_layer("quant_fc").layer.bias.assign(step * np.array([-3.7, -0.6, 0.2, 1.4, 2.3]))
        return model, step

    return biased


def set_range(model, largest):
    """Makes the output's steps far smaller than a bias's; returns their size."""
    _, variables = output_variables([layer for layer in model.layers if quantizes_tensor(layer)][-1])
    variables["range"].assign(largest)
    return largest / 127


def test_biases_are_whole_at_inference_and_float_in_training(biased):
    model, step = biased()
    fine = set_range(model, 4.5 * step)
    at_inference = model(BLACK, training=False)[0].numpy()
    np.testing.assert_allclose(at_inference / step, [-4, -1, 0, 1, 2], atol=0.6 * fine / step)
    in_training = model(BLACK, training=True)[0].numpy()
    np.testing.assert_allclose(in_training / step, [-3.7, -0.6, 0.2, 1.4, 2.3], atol=0.6 * fine / step)


def test_batch_norms_fold_into_bias_and_step(biased):
    model, step = biased(layers.BatchNormalization(name="bn"))
    gamma = np.array([-1.5, 0.5, 0.8, 1.0, 2.0])
    beta, mean = step * np.array([[0.3, -1.1, 2.2, 0.0, 0.7], [-0.4, 0.9, 1.3, 2.0, -0.2]])
    variance = np.array([0.5, 1.0, 1.3, 2.0, 0.9])
    model.get_layer("bn").set_weights([gamma, beta, mean, variance])
    factor = gamma / np.sqrt(variance + model.get_layer("bn").epsilon)
    bias = (step * np.array([-3.7, -0.6, 0.2, 1.4, 2.3]) - mean) * factor + beta
    steps = step * np.abs(factor)
    whole = np.rint(bias / steps) * steps
    fine = set_range(model, 1.1 * np.abs(whole).max())
    assert (np.abs(whole - bias) > 2 * fine).sum() >= 3, "this test needs biases that rounding changes"
    np.testing.assert_allclose(model(BLACK, training=False)[0], whole, atol=0.6 * fine)


def test_a_batch_norm_without_scale_in_a_channel_adds_no_error(biased):
    model, step = biased(layers.BatchNormalization(name="bn"))
    zeros, beta = np.zeros(5), step * np.array([0.3, -1.1, 2.2, 0.0, 0.7])
    model.get_layer("bn").set_weights([zeros, beta, zeros, zeros + 1])
    fine = set_range(model, 3 * step)
    np.testing.assert_allclose(model(BLACK, training=False)[0], beta, atol=0.6 * fine)
