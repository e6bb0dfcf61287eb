"""The integers of a quantized model's kernels."""

import numpy as np
import pytest

from satkeras import integer_weights, quantize_model


@pytest.mark.parametrize("scheme", ["sat", "pact", "dorefa", "int8"])
def test_integers_of_every_kernel(scheme, residual_model):
    latent = {f"quant_{layer.name}": layer.get_weights()[0] for layer in residual_model.layers if layer.weights}
    found = integer_weights(quantize_model(residual_model, scheme, weight_bits=3))
    assert set(found) == {"quant_stem", "quant_conv", "quant_depthwise", "quant_head", "quant_logits"}
    for name, weight in found.items():
        assert weight.num_bits == (8 if name in ("quant_stem", "quant_logits") else 3)
        assert weight.integers.dtype == np.int32
        assert weight.integers.shape == latent[name].shape
        assert -128 <= weight.integers.min() < weight.integers.max() <= 127
        odd = scheme != "int8" and weight.num_bits == 3
        assert set(np.unique(weight.integers % 2)) <= ({1} if odd else {0, 1})
        # Quantization keeps the order of the weights (int8's scales differ by channel).
        if weight.params.axis is None:
            assert (np.diff(weight.integers.ravel()[latent[name].argsort(None)]) >= 0).all()


def test_they_are_what_the_layer_computes_with(residual_model, images, train):
    model = train(quantize_model(residual_model, weight_bits=2))
    weight = integer_weights(model)["quant_head"]
    layer = model.get_layer("quant_head")
    kernel = weight.params.dequantize(weight.integers)
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype(np.float32)
    bias = next(variable for variable in layer.weights if "bias" in variable.name).numpy()
    np.testing.assert_allclose(layer(x), x @ kernel[0, 0] + bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_weights_are_named(value, residual_model):
    model = quantize_model(residual_model)
    kernel = next(variable for variable in model.get_layer("quant_head").trainable_weights if "kernel" in variable.name)
    kernel.assign(np.full(kernel.shape, value))
    with pytest.raises(ValueError, match="Layer 'quant_head': its weights hold NaN or infinity"):
        integer_weights(model)


def test_full_precision_weights_are_named(residual_model):
    with pytest.raises(ValueError, match="Layer 'quant_stem': its num_bits is None"):
        integer_weights(quantize_model(residual_model, weight_bits=None))
