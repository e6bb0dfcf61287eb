"""Schemes: which quantizer goes where. A scheme is a value; `SCHEMES` names the ones there are."""

import dataclasses
from typing import TypeAlias

import numpy as np

from satkeras.quantizers import (
    DoReFaActivationQuantizer,
    DoReFaWeightQuantizer,
    LSQActivationQuantizer,
    LSQWeightQuantizer,
    MaxWeightQuantizer,
    MovingRangeQuantizer,
    PACTQuantizer,
    QuantizationNetworksActivationQuantizer,
    QuantizationNetworksWeightQuantizer,
    Quantizer,
    SATWeightQuantizer,
)

Width: TypeAlias = int | str | None


@dataclasses.dataclass(frozen=True)
class Scheme:
    """The quantizers of a model, as patterns that placement copies for each layer.

    Attributes:
      weights: for the kernel of a convolution, depthwise convolution or dense layer that a batch norm follows.
      lone_weights: for a kernel that no batch norm follows.
      activations: for the input of a convolution, depthwise convolution or dense layer.
      last_activations: the same for a last dense layer.
      streams: for every other tensor: residual streams, pooled tensors, logits.
      first_layer_bits: width of the first layers' weights and inputs (None: as any other layer).
      last_layer_bits: width of the last layers' weights and inputs (None: as any other layer).
    """

    weights: Quantizer = DoReFaWeightQuantizer()
    lone_weights: Quantizer = DoReFaWeightQuantizer()
    activations: Quantizer = PACTQuantizer()
    last_activations: Quantizer = PACTQuantizer(initial_alpha=10.0)
    streams: Quantizer = MovingRangeQuantizer()
    first_layer_bits: int | None = 8
    last_layer_bits: int | None = 8

    def __post_init__(self):
        for name in ("weights", "lone_weights", "activations", "last_activations", "streams"):
            given = getattr(self, name)
            if not isinstance(given, Quantizer):
                raise TypeError(f"{name} must be one of satkeras.quantizers. Received: {name}={given!r}")
        # Not only when a model has such a layer.
        _at_width(self.weights, "first_layer_bits", self.first_layer_bits)
        _at_width(self.weights, "last_layer_bits", self.last_layer_bits)

    def with_bits(self, weight_bits: Width, activation_bits: int | None) -> "Scheme":
        """The same scheme at other widths; None means full precision, a name one of "qn"'s level sets for weights.

        Raises:
          TypeError, ValueError: a quantizer of the scheme does not work at its width.
        """
        return dataclasses.replace(
            self,
            weights=_at_width(self.weights, "weight_bits", weight_bits),
            lone_weights=_at_width(self.lone_weights, "weight_bits", weight_bits),
            activations=_at_width(self.activations, "activation_bits", activation_bits),
            last_activations=_at_width(self.last_activations, "activation_bits", activation_bits),
        )

    @property
    def weight_bits(self) -> Width:
        """Width of the weights or the name of their levels, None for full precision."""
        return self.weights.num_bits

    @property
    def activation_bits(self) -> int | None:
        """Width of the inputs of convolutions and dense layers, None for full precision."""
        return self.activations.num_bits


def _at_width(quantizer: Quantizer, argument: str, num_bits) -> Quantizer:
    """The quantizer at another width; errors name the argument that the width came from."""
    try:
        return dataclasses.replace(quantizer, num_bits=int(num_bits) if isinstance(num_bits, np.integer) else num_bits)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{argument}={num_bits!r}: {error}") from error


SCHEMES: dict[str, Scheme] = {
    "sat": Scheme(lone_weights=SATWeightQuantizer()),
    "pact": Scheme(
        activations=PACTQuantizer(calibrated=False),
        last_activations=PACTQuantizer(calibrated=False, initial_alpha=10.0),
    ),
    "dorefa": Scheme(activations=DoReFaActivationQuantizer(), last_activations=DoReFaActivationQuantizer()),
    "int8": Scheme(
        weights=MaxWeightQuantizer(),
        lone_weights=MaxWeightQuantizer(),
        activations=MovingRangeQuantizer(),
        last_activations=MovingRangeQuantizer(),
    ),
    "lsq": Scheme(
        weights=LSQWeightQuantizer(),
        lone_weights=LSQWeightQuantizer(),
        activations=LSQActivationQuantizer(),
        last_activations=LSQActivationQuantizer(),
    ),
    "qn": Scheme(
        weights=QuantizationNetworksWeightQuantizer(),
        lone_weights=QuantizationNetworksWeightQuantizer(),
        activations=QuantizationNetworksActivationQuantizer(),
        last_activations=QuantizationNetworksActivationQuantizer(),
    ),
}


def scheme_named(scheme: "str | Scheme") -> Scheme:
    """A `Scheme` as it is, or the one of that name.

    Raises:
      ValueError: no scheme has this name; TypeError: `scheme` is neither a name nor a Scheme.
    """
    if isinstance(scheme, Scheme):
        return scheme
    if not isinstance(scheme, str):
        raise TypeError(f"scheme must be a name or a satkeras.Scheme. Received: scheme={scheme!r}")
    if scheme not in SCHEMES:
        raise ValueError(f"scheme must be one of {sorted(SCHEMES)} or a satkeras.Scheme. Received: scheme={scheme!r}")
    return SCHEMES[scheme]
