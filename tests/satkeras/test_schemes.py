"""Schemes are values."""

import pytest

from satkeras import SCHEMES, Scheme
from satkeras.quantizers import (
    DoReFaActivationQuantizer,
    DoReFaWeightQuantizer,
    MaxWeightQuantizer,
    MovingRangeQuantizer,
    PACTQuantizer,
    QuantizationNetworksActivationQuantizer,
    QuantizationNetworksWeightQuantizer,
    SATWeightQuantizer,
)
from satkeras.schemes import scheme_named


def test_the_schemes_of_the_papers():
    sat, pact, dorefa, int8, qn = (SCHEMES[name] for name in ("sat", "pact", "dorefa", "int8", "qn"))
    # SAT rescales only where no batch norm follows, and learns alpha with the calibrated gradient.
    assert (sat.weights, sat.lone_weights) == (DoReFaWeightQuantizer(4), SATWeightQuantizer(4))
    assert (sat.activations, sat.last_activations) == (PACTQuantizer(4), PACTQuantizer(4, initial_alpha=10.0))
    assert sat.activations.calibrated
    assert sat.activations.initial_alpha == 8.0
    assert pact.weights == pact.lone_weights == DoReFaWeightQuantizer(4)
    assert not pact.activations.calibrated
    assert dorefa.activations == DoReFaActivationQuantizer(4)
    assert int8.weights == MaxWeightQuantizer(8)
    assert int8.activations == MovingRangeQuantizer(8)
    assert qn.weights == qn.lone_weights == QuantizationNetworksWeightQuantizer("ternary")
    assert qn.activations == qn.last_activations == QuantizationNetworksActivationQuantizer(2)
    for scheme in SCHEMES.values():
        assert scheme.streams == MovingRangeQuantizer(8)
        assert (scheme.first_layer_bits, scheme.last_layer_bits) == (8, 8)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(2, 3), (None, 8), (5, None), (None, None)])
def test_with_bits_changes_the_widths_and_nothing_else(name, weight_bits, activation_bits):
    scheme = SCHEMES[name]
    changed = scheme.with_bits(weight_bits, activation_bits)
    assert (changed.weight_bits, changed.activation_bits) == (weight_bits, activation_bits)
    assert (changed.lone_weights.num_bits, changed.last_activations.num_bits) == (weight_bits, activation_bits)
    assert changed.streams == scheme.streams
    assert changed.with_bits(scheme.weight_bits, scheme.activation_bits) == scheme


def test_widths_that_are_names():
    assert SCHEMES["qn"].with_bits("3bit+-4", 8).weight_bits == "3bit+-4"
    with pytest.raises(TypeError, match="num_bits='ternary'. Levels that have a name are those of scheme='qn'"):
        SCHEMES["sat"].with_bits("ternary", 2)


def test_scheme_named():
    own = Scheme(first_layer_bits=None)
    assert scheme_named(own) is own
    assert scheme_named("pact") is SCHEMES["pact"]
    with pytest.raises(ValueError, match=r"one of \[.*'dorefa'.*\] or a satkeras.Scheme. Received: scheme='doreafa'"):
        scheme_named("doreafa")
    with pytest.raises(TypeError, match="scheme must be a name or a satkeras.Scheme. Received: scheme=4"):
        scheme_named(4)
