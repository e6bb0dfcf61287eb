"""The grid of an activation: whether it is what its quantizer states, and where it lies in int8."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from satkeras.models.graph import Node
from satkeras.quantizers import Quantizer
from satkeras.quantizers.int8 import activation_levels_in_int8
from satkeras.quantizers.quant_params import QuantParams
from tflite_export.lowering.pending import Problem
from tflite_export.plan import Tensor


def activation_params(quantizer: Quantizer, variables: Mapping) -> QuantParams:
    """The grid that a tensor is stored on.

    Raises:
      Problem, ValueError: TFLite has no such grid, the training has not set it yet, or the quantizer's results lie on
        another one than it states.
    """
    params = quantizer.quant_params({name: value.numpy() for name, value in variables.items()})
    if params.axis is not None:
        raise Problem(
            f"its grid has {params.scale.size} scales, one for each channel; TFLite stores activations with one for "
            "all: give its quantizer a scalar scale"
        )
    if params.spacing != 1:
        raise Problem(
            f"the levels of its grid lie {params.spacing} integers apart; kernels round to every integer: state the "
            f"grid with {params.spacing} times the scale"
        )
    if not quantizer.reads_8_bits:  # of those, the exporter looks at every code
        _require_as_stated(quantizer, variables, params)
    return params


def _require_as_stated(quantizer: Quantizer, variables: Mapping, params: QuantParams) -> None:
    """Compares a quantizer with its grid, inside and beyond it, clear of the ties between two levels."""
    levels = np.arange(params.qmin - 3, params.qmax + 4)
    places = (levels[:, None] + [-0.25, 0.0, 0.25]).ravel() - params.zero_point
    real = (places * params.scale).astype(np.float32)
    found = np.asarray(quantizer(real + np.float32(quantizer.shift), False, variables), np.float64)
    expected = np.clip(np.repeat(levels, 3), params.qmin, params.qmax)
    off = np.abs(found / float(params.scale) + params.zero_point - expected)
    if not off.max() < 1e-3:
        worst = int(np.where(np.isfinite(off), off, np.inf).argmax())
        raise Problem(
            f"its quantizer states a grid of {params.qmin} .. {params.qmax} in steps of {params.scale:g} with 0.0 at "
            f"{params.zero_point}, but makes {found[worst]:g} of {real[worst]:g}, where that grid has "
            f"{(expected[worst] - params.zero_point) * float(params.scale):g}: state the levels, zero point and scale "
            "that its results lie on"
        )


def stored_tensor(name: str, node: Node, params: QuantParams) -> Tensor:
    """Where a grid lies in int8.

    Raises:
      ValueError: int8 cannot hold it, with the numbers.
    """
    step = float(params.scale)
    place = activation_levels_in_int8((params.qmin, params.qmax), params.zero_point)
    return Tensor(name, node.shape, np.float32(step), place.zero_point, step, place.lowest, place.highest, node.name)


def in_units_of_its_clip(tensor: Tensor, params: QuantParams) -> Tensor:
    """The same levels around int8's zero, where RELU_N1_TO_1 clips at both ends."""
    scale = np.float32(1 / params.qmax)
    return dataclasses.replace(tensor, scale=scale, zero_point=0, lowest=params.qmin, highest=params.qmax)


def require_true_scale(x: Tensor, reader: str) -> None:
    """Raises a Problem where a tensor is stored in units of its clip value, which only a weighted sum makes up for."""
    if x.in_clip_units:
        raise Problem(
            f"{reader} cannot read {x.name}, a signed tensor below 8 bits, which is stored divided by its clip value: "
            "give it 8 bits, by activation_bits or overrides= of the layers that read it, or by the scheme's streams"
        )
