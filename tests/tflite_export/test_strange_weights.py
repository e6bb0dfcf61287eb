"""Weight quantizers of strangers: their integers are in the file exactly, or they are refused.

A refusal has the numbers and a way out, and comes before training where the scheme alone tells.
"""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import satkeras
from satkeras.quantizers import MaxWeightQuantizer
from tests.tflite_export.strangers import IMAGES, WEIGHT_GRIDS, StrangersWeights, assert_refused, network, quantized


def fits(grid: str, bits: int) -> bool:
    low, high, zero_point = WEIGHT_GRIDS[grid](bits)
    return max(high - zero_point, zero_point - low) <= 127


@pytest.mark.thinned(3)
@pytest.mark.parametrize("grid", WEIGHT_GRIDS)
def test_weight_grids_that_int8_holds(grid, exported):
    """Every width that fits, each in some layer of a network; every other one with a scale for each channel."""
    plain = dataclasses.replace(satkeras.SCHEMES["int8"], first_layer_bits=None, last_layer_bits=None)
    widths = [bits for bits in range(2, 9) if fits(grid, bits)]
    for start in range(0, len(widths), 4):
        quantizers = {
            name: StrangersWeights(bits, grid, per_channel=bits % 2 == 0)
            for name, bits in zip("abcd", widths[start : start + 4], strict=False)
        }
        overrides = {
            name: dataclasses.replace(plain, weights=quantizer, lone_weights=quantizer)
            for name, quantizer in quantizers.items()
        }
        model = satkeras.quantize_model(network(), plain, overrides=overrides, calibration_data=IMAGES)
        integers = satkeras.integer_weights(model)
        for name, quantizer in quantizers.items():
            assert integers[f"quant_{name}"].num_bits == quantizer.num_bits
            assert len(np.unique(integers[f"quant_{name}"].integers)) > 2
        assert exported(model).differing == 0


@pytest.mark.parametrize("grid", ["twos_complement", "unsigned"])
def test_a_weight_of_minus_128_has_no_place(grid, exported, tmp_path):
    """Whether the grid's last integer occurs, only the weights tell; a negative gamma mirrors it to 128."""
    model = quantized(StrangersWeights(8, grid), bits=8)
    message = r"1 of its weights are (-128 .. -128|128 .. 128) on their grid .*: use a symmetric grid -127 .. 127, or 7"
    assert_refused(model, tmp_path, message)
    # It does not occur where positive weights are the largest.
    float_model = network()
    for name in "abcd":
        kernel, bias = float_model.get_layer(name).weights
        kernel.assign(tf.where(kernel == tf.reduce_max(tf.abs(kernel)), kernel, tf.abs(kernel) - 0.1))
    scheme = dataclasses.replace(
        satkeras.SCHEMES["int8"], weights=StrangersWeights(8, grid), lone_weights=StrangersWeights(8, grid)
    )
    model = satkeras.quantize_model(float_model, scheme, weight_bits=8, activation_bits=8, calibration_data=IMAGES)
    assert all(weight.integers.min() > weight.params.qmin for weight in satkeras.integer_weights(model).values())
    assert exported(model).differing == 0


@pytest.mark.parametrize(
    ("grid", "bits", "integers"),
    [("positive", 8, "0 .. 255"), ("lopsided", 8, "-1 .. 254"), ("powers_of_two", 5, "-16384 .. 16384")],
)
def test_weight_grids_that_int8_cannot_hold_are_refused_before_training(grid, bits, integers):
    message = (
        r"the integers of these quantizers:\n  'a', 'b', 'c', 'd', StrangersWeights: its weight grid has "
        f"the integers {integers} around zero; .* Give it fewer bits"
    )
    with pytest.raises(ValueError, match=message):
        quantized(StrangersWeights(bits, grid), bits=bits)


@tf_keras.utils.register_keras_serializable(package="strangers")
@dataclasses.dataclass(frozen=True)
class LyingWeights(MaxWeightQuantizer):
    """States the grid of its parent; its results lie elsewhere."""

    stated: float = 1.0
    beyond: float = 0.0

    def scale(self, variables, latent=None):
        return super().scale(variables, latent) * self.stated

    def __call__(self, inputs, training, weights, **kwargs):
        scale = MaxWeightQuantizer.scale(self, weights, inputs)
        scale = scale[:, None] if self.depthwise else scale
        return (tf.round(inputs / scale) + self.beyond) * scale


@pytest.mark.parametrize("options", [{"stated": 1.01}, {"stated": 0.5}, {"stated": 2.0}, {"beyond": 0.1}], ids=str)
def test_weights_that_are_not_as_stated(options, tmp_path):
    model = quantized(LyingWeights(4, **options))
    assert_refused(model, tmp_path, "quant_a: Values must lie on the grid .* Received: a value .* of a step away")


def test_weights_that_are_as_stated(exported):
    assert exported(quantized(LyingWeights(4))).differing == 0
