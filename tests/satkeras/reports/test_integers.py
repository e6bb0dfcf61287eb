"""The integers of a quantized model's kernels."""

import dataclasses
import os

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

from satkeras import SCHEMES, QuantParams, integer_weights, quantize_model, save_integer_weights
from satkeras._compat import serializable
from satkeras.quantizers import MaxWeightQuantizer


@pytest.mark.thinned(3)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_integers_of_every_kernel(scheme, residual_model, quantized):
    latent = {f"quant_{layer.name}": layer.get_weights()[0] for layer in residual_model.layers if layer.weights}
    found = integer_weights(quantized(scheme, weight_bits=3))
    assert set(found) == {"quant_stem", "quant_conv", "quant_depthwise", "quant_head", "quant_logits"}
    for name, weight in found.items():
        assert weight.num_bits == (8 if name in ("quant_stem", "quant_logits") else 3)
        assert weight.integers.dtype == np.int32
        assert weight.integers.shape == latent[name].shape
        assert -128 <= weight.integers.min() < weight.integers.max() <= 127
        odd = scheme in ("sat", "pact", "dorefa") and weight.num_bits == 3
        assert set(np.unique(weight.integers % 2)) <= ({1} if odd else {0, 1})
        # Quantization keeps the order of the weights (int8's scales differ by channel).
        if weight.params.axis is None:
            assert (np.diff(weight.integers.ravel()[latent[name].argsort(None)]) >= 0).all()


def test_they_are_what_the_layer_computes_with(quantized, images, train):
    model = train(quantized(weight_bits=2))
    weight = integer_weights(model)["quant_head"]
    layer = model.get_layer("quant_head")
    kernel = weight.params.dequantize(weight.integers)
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype(np.float32)
    bias = next(variable for variable in layer.weights if "bias" in variable.name).numpy()
    np.testing.assert_allclose(layer(x), x @ kernel[0, 0] + bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_weights_are_named(value, quantized):
    model = quantized()
    kernel = next(variable for variable in model.get_layer("quant_head").trainable_weights if "kernel" in variable.name)
    kernel.assign(np.full(kernel.shape, value))
    with pytest.raises(ValueError, match="Layer 'quant_head': its weights hold NaN or infinity"):
        integer_weights(model)


def test_full_precision_weights_are_named(quantized):
    with pytest.raises(ValueError, match="Layer 'quant_stem': its num_bits is None"):
        integer_weights(quantized(weight_bits=None))


@pytest.mark.parametrize("scheme", ["sat", "int8"])
def test_the_file_holds_them_all(scheme, quantized, tmp_path):
    model = quantized(scheme, weight_bits=3)
    save_integer_weights(model, tmp_path / "weights.npz")
    found = integer_weights(model)
    with np.load(tmp_path / "weights.npz", allow_pickle=False) as file:
        assert {key.rsplit("/", 1)[0] for key in file} == set(found)
        for name, weight in found.items():
            arrays = {key.rsplit("/", 1)[1]: file[key] for key in file if key.rsplit("/", 1)[0] == name}
            assert set(arrays) == {"integers", "scale", "zero_point", "axis", "bits", "levels"}
            assert arrays["integers"].dtype == np.int8
            assert arrays["bits"] == weight.num_bits
            np.testing.assert_array_equal(arrays["integers"], weight.integers)
            axis = None if arrays["axis"] < 0 else int(arrays["axis"])
            params = QuantParams(arrays["scale"], int(arrays["zero_point"]), *arrays["levels"].tolist(), axis)
            np.testing.assert_array_equal(
                params.dequantize(arrays["integers"]), weight.params.dequantize(weight.integers)
            )


def test_names_with_slashes_stay_apart(tmp_path):
    names = ["a", "a/integers", "a/integers/integers"]
    stack = [layers.Dense(2, name=name) for name in names]
    model = quantize_model(tf_keras.Sequential([layers.InputLayer((2,)), *stack]))
    save_integer_weights(model, tmp_path / "file")
    with np.load(tmp_path / "file", allow_pickle=False) as file:
        for name, weight in integer_weights(model).items():
            np.testing.assert_array_equal(file[f"{name}/integers"], weight.integers)
        assert len(file.files) == 6 * 3


@serializable
@dataclasses.dataclass(frozen=True)
class UnsignedQuantizer(MaxWeightQuantizer):
    levels = (1, 255)
    zero_point = 128

    def scale(self, variables, latent=None):
        return super().scale(variables, latent) * (255 / 127)


def test_integers_beyond_int8_take_int16(tmp_path, quantized):
    scheme = dataclasses.replace(SCHEMES["int8"], weights=UnsignedQuantizer(), lone_weights=UnsignedQuantizer())
    save_integer_weights(quantized(scheme), tmp_path / "file")
    with np.load(tmp_path / "file") as file:
        assert file["quant_conv/integers"].dtype == np.int16
        assert np.abs(file["quant_conv/integers"] - 128).max() == 127


def test_the_same_weights_make_the_same_file(quantized, tmp_path):
    model = quantized()
    for name in ("one", "two"):
        save_integer_weights(model, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_an_interrupted_save_leaves_the_old_file(quantized, tmp_path, monkeypatch):
    path = tmp_path / "weights.npz"
    path.write_bytes(b"old")

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        save_integer_weights(quantized(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_saved(residual_model, quantized, tmp_path):
    with pytest.raises(ValueError, match="The folder of path must exist"):
        save_integer_weights(quantized(), tmp_path / "missing" / "file")
    with pytest.raises(ValueError, match="^save_integer_weights needs a model that satkeras.quantize_model returned"):
        save_integer_weights(residual_model, tmp_path / "file")
    assert not list(tmp_path.iterdir())
