"""Which width and scheme each layer gets: overrides, first and last layers, full precision."""

import dataclasses

import pytest
from tf_keras import layers

from satkeras import SCHEMES, quantize_model, summary
from satkeras.quantizers import MaxWeightQuantizer, MovingRangeQuantizer, PACTQuantizer, SATWeightQuantizer
from tests.satkeras.small_models import built, sequential, small_model

OVERRIDES = {
    "bits": ({"a": {"weight_bits": 3}}, SATWeightQuantizer(3), PACTQuantizer(4)),
    "both bits": ({"a": {"weight_bits": 3, "activation_bits": 2}}, SATWeightQuantizer(3), PACTQuantizer(2)),
    "full precision": ({"a": {"weight_bits": None}}, SATWeightQuantizer(None), PACTQuantizer(4)),
    "name": ({"a": "int8"}, MaxWeightQuantizer(8), MovingRangeQuantizer(8)),
    "value": ({"a": SCHEMES["sat"].with_bits(7, 6)}, SATWeightQuantizer(7), PACTQuantizer(6)),
    "pattern": ({"?": {"weight_bits": 5}}, SATWeightQuantizer(5), PACTQuantizer(4)),
    "last match": ({"*": {"weight_bits": 5}, "a*": {"weight_bits": 6}}, SATWeightQuantizer(6), PACTQuantizer(4)),
    "on top of each other": ({"*": "int8", "a": {"weight_bits": 6}}, MaxWeightQuantizer(6), MovingRangeQuantizer(8)),
    "other layer": ({"logits": {"weight_bits": 6}}, SATWeightQuantizer(4), PACTQuantizer(4)),
}


@pytest.mark.parametrize(("overrides", "weights", "activations"), OVERRIDES.values(), ids=OVERRIDES.keys())
def test_overrides(overrides, weights, activations, quantizers_of):
    model = built(small_model(layers.Conv2D(2, 3, activation="relu", name="a")))
    found = quantizers_of(quantize_model(model, overrides=overrides))
    assert (found["quant_a"], found["quant_conv_relu_output"]) == (weights, activations)


def test_an_override_wins_over_the_first_and_last_layers(quantizers_of):
    found = quantizers_of(
        quantize_model(built(small_model()), overrides={"*": {"weight_bits": 3, "activation_bits": 5}})
    )
    assert (found["quant_conv"].num_bits, found["quant_logits"].num_bits) == (3, 3)
    assert found["quant_conv_relu_output"].num_bits == 5


@pytest.mark.parametrize("bits", [8, 5, None])
def test_first_and_last_layers(bits, quantizers_of):
    model = sequential(
        layers.Conv2D(2, 3, name="first", activation="relu"),
        layers.Conv2D(2, 3, name="middle", activation="relu"),
        layers.Flatten(),
        layers.Dense(2, name="last"),
    )
    scheme = dataclasses.replace(SCHEMES["sat"], first_layer_bits=bits, last_layer_bits=bits)
    found = quantizers_of(quantize_model(model, scheme, weight_bits=3, activation_bits=2))
    assert found["quant_first"] == SATWeightQuantizer(bits or 3)
    assert found["quant_middle"] == SATWeightQuantizer(3)
    assert found["quant_last"] == SATWeightQuantizer(bits or 3, averaged=1)
    assert found["quant_first_relu_output"] == PACTQuantizer(2)
    assert found["quant_middle_relu_output"] == PACTQuantizer(bits or 2, initial_alpha=10.0)


@pytest.mark.parametrize(
    ("weight_bits", "activation_bits"), [(None, None), (4, None), (None, 4)], ids=["none", "weights", "activations"]
)
def test_full_precision_parts(weight_bits, activation_bits, residual_model, quantizers_of):
    found = quantizers_of(quantize_model(residual_model, weight_bits=weight_bits, activation_bits=activation_bits))
    weights = {name: found.pop(f"quant_{name}").num_bits for name in ("stem", "conv", "depthwise", "head", "logits")}
    edge = None if weight_bits is None else 8
    assert weights == {"stem": edge, "logits": edge, **dict.fromkeys(("conv", "depthwise", "head"), weight_bits)}
    # Without low-bit activations no tensor is quantized at all.
    assert bool(found) == (activation_bits is not None)
    assert all(quantizer.num_bits is not None for quantizer in found.values())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_widths_that_are_not_given_are_the_schemes(scheme):
    model = built(small_model(layers.Conv2D(2, 3, activation="relu", name="middle")))
    (middle,) = (layer for layer in summary(quantize_model(model, scheme)).layers if layer.name == "quant_middle")
    assert (middle.weight_bits, middle.input_bits) == (SCHEMES[scheme].weights.width, SCHEMES[scheme].activations.width)
