"""At inference a stored tensor has its bias in whole steps of input scale times weight scale, as the file has."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import satkeras
from satkeras._compat import output_variables


def spread(integers):
    """The exporter stores a weight's integers times the largest factor that int8 allows."""
    return 127 // integers.params.qmax


def stored_scale(model, name):
    quantizer, variables = output_variables(model.get_layer(name))
    return quantizer.quant_params(variables).scale.astype(np.float64)


def trained(model, x):
    """Quantized, with every range known and batch norms at arbitrary statistics."""
    quantized = satkeras.quantize_model(model, "sat", weight_bits=3, activation_bits=4)
    quantized.compile("sgd", "mse")
    quantized.fit(x, np.zeros((len(x), *quantized.output_shape[1:])), verbose=0)
    rng = np.random.default_rng(5)
    for layer in quantized.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    return quantized


def expected_bias(bias, step):
    return np.rint(bias / step) * step


def result_of(model, x, name):
    """The tensor that the quantizer called `name` stores, and that tensor before rounding if its bias is `bias`."""
    return tf_keras.Model(model.input, model.get_layer(name).output)(x, training=False).numpy().astype(np.float64)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_dense_layers_compute_with_whole_biases(batch_norm):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (64, 6)).astype(np.float32)
    inputs = tf_keras.Input((6,), name="codes")
    h = layers.Dense(5, bias_initializer=tf_keras.initializers.RandomUniform(-3, 3, seed=1), name="fc")(inputs)
    h = layers.BatchNormalization(name="bn")(h) if batch_norm else h
    model = trained(tf_keras.Model(inputs, layers.Dense(2, name="last")(layers.ReLU(name="relu")(h))), x)

    weight = satkeras.integer_weights(model)["quant_fc"]
    kernel = weight.params.dequantize(weight.integers).astype(np.float64)
    bias = model.get_layer("quant_fc").layer.bias.numpy().astype(np.float64)
    step = float(weight.params.scale) / spread(weight)  # the input's scale is 1
    factor, shift = np.ones(5), np.zeros(5)
    if batch_norm:
        bn = model.get_layer("bn")
        gamma, beta, mean, variance = (weight.astype(np.float64) for weight in bn.get_weights())
        factor = gamma / np.sqrt(variance + bn.epsilon)
        shift = beta - mean * factor
    rounded = expected_bias(bias * factor + shift, step * factor)
    assert np.abs(rounded - bias * factor - shift).max() > 0
    steps = np.maximum(x @ kernel * factor + rounded, 0) / stored_scale(model, "quant_relu_output")
    expected = np.clip(np.rint(steps), 0, 255)
    found = result_of(model, x, "quant_relu_output") / stored_scale(model, "quant_relu_output")
    away_from_ties = np.abs(steps % 1 - 0.5) > 1e-3
    np.testing.assert_allclose(found[away_from_ties], expected[away_from_ties], atol=1e-3)
