"""Activation quantizers of strangers: their integers are in the file exactly, or they are refused.

A refusal has the numbers and a way out, and comes before training where the scheme alone tells.
"""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

import satkeras
from satkeras.quantizers import MovingRangeQuantizer
from tests.tflite_export.strangers import (
    ACTIVATION_GRIDS,
    IMAGES,
    StrangersActivations,
    assert_refused,
    network,
    quantized,
)
from tflite_export.lowering.grids import activation_params
from tflite_export.lowering.pending import Problem


@pytest.mark.thinned(3)
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("grid", ["lopsided", "symmetric", "with_zero_point"])
def test_activation_grids_that_int8_holds(grid, bits, exported):
    assert exported(quantized(activations=StrangersActivations(bits, grid), bits=bits)).differing == 0


@pytest.mark.parametrize(
    ("grid", "reason"),
    [
        (
            "all_of_nine_bits",
            r"its grid has the integers 0 .. 511, 512 of them; int8 holds 256. Give it 8 bits or fewer",
        ),
        ("from_one", r"0.0 is the integer 0 of its grid, outside 1 .. 15; TFLite pads with 0.0, which must be a level"),
    ],
)
def test_activation_grids_that_int8_cannot_hold_are_refused_before_training(grid, reason):
    with pytest.raises(ValueError, match=rf"'a.*StrangersActivations: {reason}"):
        quantized(activations=StrangersActivations(4, grid))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"spaced": 3, "grid": "with_zero_point"}, "lie 3 integers apart; .* state the grid with 3 times the scale"),
        ({"stated_step": 2.0}, r"states a grid of -8 .. 7 in steps of .* but makes .*: state the levels"),
        ({"stated_step": 0.5}, r"states a grid of -8 .. 7 in steps of .* but makes"),
        ({"stated_step": 1.01}, r"states a grid of -8 .. 7 in steps of .* but makes"),
        ({"noise": 0.1}, r"states a grid of -8 .. 7 in steps of .* but makes"),
        ({"noise": 1.0}, r"states a grid of -8 .. 7 in steps of .* but makes"),
        ({"noise": float("nan")}, r"states a grid of -8 .. 7 in steps of .* but makes nan"),
        ({"tilt": 0.3}, r"states a grid of -8 .. 7 in steps of .* but makes"),
        ({"tilt": -0.3}, r"states a grid of -8 .. 7 in steps of .* but makes"),
        (
            {"stated_levels": (-7, 7)},
            r"states a grid of -7 .. 7 in .* but makes -2.96 of .*, where that grid has -2.59",
        ),
        ({"stated_levels": (-8, 8)}, r"states a grid of -8 .. 8 in steps of .* but makes"),
    ],
    ids=str,
)
def test_activations_that_are_not_as_stated(options, reason):
    with pytest.raises(Problem, match=reason):
        activation_params(StrangersActivations(4, **options), {"step": tf.Variable(0.37)})


def test_a_network_with_activations_that_are_not_as_stated(tmp_path):
    model = quantized(activations=StrangersActivations(4, noise=0.1))
    assert_refused(model, tmp_path, r"quant_norm_output: its quantizer states a grid of -8 .. 7 in steps of .* but")


@pytest.mark.parametrize("step", [1e-6, 0.37, 1 / 3, 1e6])
@pytest.mark.parametrize("bits", [2, 5, 8])
@pytest.mark.parametrize("grid", ["lopsided", "symmetric", "with_zero_point"])
def test_activations_that_are_as_stated(grid, bits, step):
    params = activation_params(StrangersActivations(bits, grid), {"step": tf.Variable(step)})
    assert (params.qmin, params.qmax, params.zero_point) == ACTIVATION_GRIDS[grid](bits)
    assert params.scale == np.float32(step)


def test_activations_with_a_scale_for_each_channel(tmp_path):
    """Where the channels are four: at the input of the depthwise and of the 1x1 convolution."""
    model = satkeras.quantize_model(
        network(),
        dataclasses.replace(satkeras.SCHEMES["int8"], first_layer_bits=None),
        weight_bits=8,
        activation_bits=8,
        overrides={
            name: dataclasses.replace(
                satkeras.SCHEMES["int8"], activations=StrangersActivations(4, "symmetric", per_channel=True)
            )
            for name in "bc"
        },
        calibration_data=IMAGES,
    )
    assert_refused(model, tmp_path, "its grid has 4 scales, one for each channel; .* give its quantizer a scalar scale")


# Signed tensors below 8 bits are stored in units of their clip value: only weighted sums can read them.


def narrow_streams(head) -> tf_keras.Model:
    scheme = dataclasses.replace(satkeras.SCHEMES["int8"], streams=MovingRangeQuantizer(4))
    image = layers.Input((6, 6, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", name="a")(image)
    model = tf_keras.Model(image, head(x))
    return satkeras.quantize_model(model, scheme, weight_bits=8, activation_bits=8, calibration_data=IMAGES)


@pytest.mark.parametrize(
    ("head", "reader"),
    [
        (lambda x: layers.Softmax()(x), "SOFTMAX"),
        (lambda x: layers.Conv2D(2, 1)(layers.Add()([x, layers.Conv2D(4, 1)(x)])), "ADD"),
    ],
    ids=["softmax", "add"],
)
def test_units_that_the_reader_would_not_know(head, reader, tmp_path):
    model = narrow_streams(head)
    assert_refused(model, tmp_path, f"{reader} cannot read .*, a signed tensor below 8 bits, .*: give it 8 bits")


def test_a_narrow_signed_output_has_its_own_units(exported):
    assert exported(narrow_streams(lambda x: x)).differing == 0


@pytest.mark.parametrize("grid", ["lopsided", "symmetric"])
def test_a_signed_grid_behind_a_relu(grid, exported):
    """Its levels below zero never occur."""
    scheme = dataclasses.replace(satkeras.SCHEMES["int8"], activations=StrangersActivations(4, grid))
    image = layers.Input((6, 6, 3), name="image")
    x = layers.Conv2D(4, 1, name="b")(layers.Conv2D(4, 3, activation="relu", name="a")(image))
    model = tf_keras.Model(image, layers.Conv2D(2, 1, name="c")(x))
    model = satkeras.quantize_model(model, scheme, weight_bits=8, activation_bits=4, calibration_data=IMAGES)
    found = exported(model)
    assert found.differing == 0
    assert next(one for one in found.tensors if one.name.startswith("a")).layer_differs == 0
