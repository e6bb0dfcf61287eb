"""What holds for every quantizer: its configuration, the widths it refuses, full precision."""

import dataclasses

import numpy as np
import pytest

from satkeras import quantizers
from satkeras.quantizers import (
    DoReFaActivationQuantizer,
    DoReFaWeightQuantizer,
    InputQuantizer,
    MaxWeightQuantizer,
    MovingRangeQuantizer,
    PACTQuantizer,
    QuantizationNetworksActivationQuantizer,
    QuantizationNetworksWeightQuantizer,
    SATWeightQuantizer,
)

WITH_WIDTH = [
    DoReFaActivationQuantizer,
    DoReFaWeightQuantizer,
    MaxWeightQuantizer,
    MovingRangeQuantizer,
    PACTQuantizer,
    SATWeightQuantizer,
]
# Every field away from its default.
ELABORATE = [
    DoReFaActivationQuantizer(3, signed=True),
    DoReFaWeightQuantizer(5, "symmetric"),
    InputQuantizer(-1.0, 127 / 128),
    MaxWeightQuantizer(6, depthwise=True),
    MovingRangeQuantizer(7, signed=True, decay=0.5),
    PACTQuantizer(2, signed=True, calibrated=False, initial_alpha=3.5, alpha_decay=1e-4),
    QuantizationNetworksActivationQuantizer(3, learn_thresholds=True, gradient_temperature=9.0),
    QuantizationNetworksWeightQuantizer("3bit+-4", learn_thresholds=True, gradient_temperature=9.0, zero_edge=None),
    SATWeightQuantizer(3, "odd", rescale="stddev", depthwise=True),
]


def test_these_are_all_the_quantizers():
    assert {type(quantizer).__name__ for quantizer in ELABORATE} | {"Quantizer"} == set(quantizers.__all__)


@pytest.mark.parametrize("quantizer", ELABORATE, ids=lambda quantizer: type(quantizer).__name__)
def test_config_round_trip_of_every_field(quantizer, round_trip):
    default = type(quantizer)()
    for field in dataclasses.fields(quantizer):
        assert getattr(quantizer, field.name) != getattr(default, field.name) or not field.init, field.name
    round_trip(quantizer)


@pytest.mark.parametrize("num_bits", [None, *range(2, 9)])
@pytest.mark.parametrize("cls", WITH_WIDTH)
def test_config_round_trip_of_every_width(cls, num_bits, round_trip):
    assert round_trip(cls(num_bits))["config"]["num_bits"] == num_bits


@pytest.mark.parametrize("cls", WITH_WIDTH)
def test_widths_that_are_refused(cls):
    for num_bits in (-1, 0, 1, 9, 16):
        with pytest.raises(ValueError, match=rf"{cls.__name__} works with 2 to 8 bits. Received: num_bits={num_bits}$"):
            cls(num_bits)
    for num_bits in (2.5, 4.0, True, "4"):
        with pytest.raises(
            TypeError, match=f"{cls.__name__} needs an integer num_bits or None .* num_bits={num_bits!r}"
        ):
            cls(num_bits)


@pytest.mark.parametrize("cls", WITH_WIDTH)
def test_full_precision_has_no_grid(cls):
    with pytest.raises(ValueError, match="num_bits is None"):
        cls(None).quant_params({"alpha": np.float32(1), "range": np.float32(1)}, np.ones((2, 2), np.float32))


@pytest.mark.parametrize("cls", [DoReFaActivationQuantizer, MovingRangeQuantizer, PACTQuantizer])
def test_full_precision_activations_are_not_called(cls, variables_of):
    with pytest.raises(ValueError, match="num_bits is None"):
        cls(None)(np.ones(4, np.float32), True, variables_of(cls(None)))


def test_quantizers_are_values():
    assert PACTQuantizer(4) == PACTQuantizer(4) != PACTQuantizer(5)
    assert len({PACTQuantizer(4), PACTQuantizer(4), PACTQuantizer(4, signed=True)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        PACTQuantizer(4).num_bits = 5  # type: ignore[misc]
