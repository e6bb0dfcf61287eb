"""The summary's numbers against those worked out by hand, and its text."""

import math

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

from satkeras import integer_weights, quantize_model, strip, summary


@pytest.fixture
def rows(quantized):
    return {layer.name: layer for layer in summary(quantized()).layers}


def test_bits_and_grids(rows):
    assert list(rows) == ["quant_stem", "quant_conv", "quant_depthwise", "quant_head", "quant_logits"]
    found = {name: (x.kind, x.weight_bits, x.weight_grid, x.input_bits, x.input_grid) for name, x in rows.items()}
    assert found == {
        "quant_stem": ("Conv2D", 8, "-127..127", 8, "0..255"),
        "quant_conv": ("Conv2D", 4, "odd -15..15", 4, "0..15"),
        "quant_depthwise": ("DepthwiseConv2D", 4, "odd -15..15", 4, "0..15"),
        "quant_head": ("Conv2D", 4, "odd -15..15", 4, "-7..7"),
        "quant_logits": ("Dense", 8, "-127..127", 8, "0..255"),
    }


def test_bytes_and_macs(rows):
    found = {name: (x.weight_bytes, x.bias_bytes, x.macs) for name, x in rows.items()}
    assert found == {
        "quant_stem": (3 * 3 * 3 * 4, 16, 3 * 3 * 3 * 4 * 64),
        "quant_conv": (3 * 3 * 4 * 4 // 2, 16, 3 * 3 * 4 * 4 * 64),
        "quant_depthwise": (3 * 3 * 4 // 2, 16, 3 * 3 * 4 * 64),
        "quant_head": (4 * 6 // 2, 24, 4 * 6 * 64),
        "quant_logits": (6 * 5, 20, 30),
    }


@pytest.mark.parametrize("scheme", ["sat", "int8"])
def test_totals_beside_the_float_model(residual_model, quantized, scheme):
    model = quantized(scheme, weight_bits=3)
    found = summary(model)
    assert found.float_bytes == 4 * residual_model.count_params() == 4 * strip(model).count_params()
    integers = integer_weights(model).values()
    assert found.weight_bytes == sum(math.ceil(x.integers.size * x.num_bits / 8) for x in integers)
    assert found.bias_bytes == sum(layer.bias_bytes for layer in found.layers)
    assert found.macs == sum(layer.macs for layer in found.layers) == sum(found.macs_by_width.values())


def test_alpha_follows_the_training(quantized, train):
    model = quantized()
    assert [layer.alpha for layer in summary(model).layers] == [255, 8, 8, 8, None]
    train(model)
    alphas = {variable.name: float(variable) for variable in model.variables if "alpha" in variable.name}
    found = [layer.alpha for layer in summary(model).layers]
    np.testing.assert_allclose(sorted(found[1:4]), sorted(alphas.values()), rtol=1e-6)
    assert found[1:4] != [8, 8, 8]
    assert found[4] > 0  # the pooled tensor's is that of the stream before it


def test_ranges_before_and_after_the_first_data(quantized, train):
    model = quantized("int8")
    assert [layer.alpha for layer in summary(model).layers][1:] == [None] * 4
    train(model)
    assert all(layer.alpha > 0 for layer in summary(model).layers)
    for variable in model.variables:
        if "range" in variable.name:
            variable.assign(np.nan)
    assert math.isnan(summary(model).layers[-1].alpha)


def test_full_precision(residual_model, quantized):
    found = summary(quantized(weight_bits=None, activation_bits=None))
    for layer in found.layers:
        assert (layer.weight_bits, layer.weight_grid, layer.input_bits, layer.input_grid) == (None, "float") * 2
        assert layer.alpha is None
    kernels = sum(math.prod(x.get_weights()[0].shape) for x in residual_model.layers if hasattr(x, "kernel_size"))
    assert found.weight_bytes == 4 * (kernels + 6 * 5)
    assert "W32A32" in str(found)


def test_a_shared_layer_has_a_row_for_each_call_and_its_bytes_once():
    inputs = tf_keras.Input((8, 8, 3))
    shared = layers.Conv2D(3, 3, name="shared")
    x = layers.ReLU()(shared(layers.ReLU()(shared(inputs))))
    found = summary(quantize_model(tf_keras.Model(inputs, layers.Dense(2, name="logits")(layers.Flatten()(x)))))
    first, second, _ = found.layers
    assert (first.name, second.name) == ("quant_shared", "quant_shared_1")
    assert (first.macs, second.macs) == (81 * 36, 81 * 16)
    assert (second.weight_bytes, second.bias_bytes) == (0, 0)
    assert (first.input_bits, second.input_bits) == (8, 8)
    assert found.float_bytes == 4 * (81 + 3 + 48 * 2 + 2)


def test_odd_numbers_of_weights_fill_whole_bytes():
    model = tf_keras.Sequential([layers.InputLayer((3,)), layers.Dense(3), layers.ReLU(), layers.Dense(1)])
    found = summary(quantize_model(model, overrides={"*": {"weight_bits": 3}}))
    assert [layer.weight_bytes for layer in found.layers] == [4, 2]  # 27 and 9 bits


def test_open_sizes_are_those_given():
    stack = [layers.Conv2D(4, 3, name="conv"), layers.GlobalAveragePooling2D(), layers.Dense(2, name="logits")]
    model = tf_keras.Sequential([layers.InputLayer((None, None, 3)), *stack])
    found = summary(quantize_model(model, input_shape=(8, 8, 3)))
    assert [layer.macs for layer in found.layers] == [6 * 6 * 4 * 27, 8]


def test_sizes_that_are_not_fixed():
    """As in a copy of a quantized model on another input."""
    stack = [layers.Conv2D(4, 3, name="conv"), layers.GlobalAveragePooling2D(), layers.Dense(2, name="logits")]
    fixed = quantize_model(tf_keras.Sequential([layers.InputLayer((8, 8, 3)), *stack]))
    found = summary(tf_keras.models.clone_model(fixed, input_tensors=tf_keras.Input((None, None, 3))))
    assert [layer.macs for layer in found.layers] == [None, 8]
    assert found.macs is None
    assert "MACs: ? for an image" in str(found)


def test_the_text(quantized):
    model = quantized()
    found, text = summary(model), str(summary(model))
    head, line = text.splitlines()[2], next(line for line in text.splitlines() if line.startswith("quant_conv"))
    assert head.split()[:3] == ["layer", "kind", "W"]
    assert line.split() == ["quant_conv", "Conv2D", "4", "odd", "-15..15", "4", "0..15", "8", "72", "16", "9,216"]
    assert f"float model {found.float_bytes:,}" in text
    assert f"W4A4 {found.macs_by_width[4, 4]:,}" in text


def test_a_float_model_is_refused(residual_model):
    with pytest.raises(ValueError, match="summary needs a model that satkeras.quantize_model returned"):
        summary(residual_model)
