"""Quantizers, one file per paper. Each states its integer grid: see `base.Quantizer`."""

from satkeras.quantizers.base import Quantizer, QuantizerVariable
from satkeras.quantizers.dorefa import DoReFaActivationQuantizer, DoReFaWeightQuantizer
from satkeras.quantizers.inputs import InputQuantizer
from satkeras.quantizers.integer_arithmetic import MaxWeightQuantizer, MovingRangeQuantizer
from satkeras.quantizers.lsq import LSQActivationQuantizer, LSQWeightQuantizer
from satkeras.quantizers.pact import PACTQuantizer
from satkeras.quantizers.quantization_networks import (
    QuantizationNetworksActivationQuantizer,
    QuantizationNetworksWeightQuantizer,
)
from satkeras.quantizers.sat import SATWeightQuantizer

__all__ = [
    "DoReFaActivationQuantizer",
    "DoReFaWeightQuantizer",
    "InputQuantizer",
    "LSQActivationQuantizer",
    "LSQWeightQuantizer",
    "MaxWeightQuantizer",
    "MovingRangeQuantizer",
    "PACTQuantizer",
    "QuantizationNetworksActivationQuantizer",
    "QuantizationNetworksWeightQuantizer",
    "Quantizer",
    "QuantizerVariable",
    "SATWeightQuantizer",
]
