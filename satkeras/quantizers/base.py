"""What every quantizer is: a frozen value on tfmot's interface that also states its integer grid."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from satkeras._compat import tfmot
from satkeras.quantizers.quant_params import QuantParams


class Quantizer(tfmot.quantization.keras.quantizers.Quantizer, abc.ABC):
    """A tfmot quantizer that states the integer grid its results lie on.

    A subclass is a frozen dataclass. It keeps no state of its own: the variables that `build` makes belong to the
    layer, and tfmot hands them back on every call.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]  # subclasses are dataclasses

    num_bits: int | None
    replaces_relu: ClassVar[bool] = False  # its learned clip takes the place of a ReLU before it, maximum and all
    keeps_input: ClassVar[bool] = True  # its backward pass reads the tensor that it quantizes
    ends_at_largest: ClassVar[bool] = False  # one grid for the kernel, up to its largest weight: see equalization.py
    reads_8_bits: ClassVar[bool] = False  # its levels are not evenly spaced in its input, which is stored at 8 bits

    def build(self, tensor_shape, name, layer):
        """Creates the quantizer's variables in `layer`; returns them by name. None by default."""
        return {}

    def specialized(self, **facts) -> "Quantizer":
        """The quantizer for one tensor, told those facts about it that it has a field for."""
        fields = {field.name for field in dataclasses.fields(self)}
        return dataclasses.replace(self, **{name: fact for name, fact in facts.items() if name in fields})

    @abc.abstractmethod
    def __call__(self, inputs, training, weights, **kwargs):
        """Fake-quantizes `inputs` (float tensor) onto the grid; `weights` are the variables that `build` returned."""

    def latent_of(self, weight: np.ndarray, variables: Mapping[str, Any]) -> np.ndarray:
        """The latent weight whose quantized weight is closest to a pretrained `weight`; may set `variables`.

        By default the weight itself, for quantizers that transform nothing but the grid.
        """
        return weight

    def calibrate(self, values: np.ndarray, variables: Mapping[str, Any]) -> None:
        """Sets `variables` to suit the tensor. Does nothing by default.

        Args:
          values: values that the tensor takes for some inputs, any shape; for a weight, the latent weight.
          variables: what `build` returned.
        """

    @property
    @abc.abstractmethod
    def levels(self) -> tuple[int, int]:
        """The smallest and largest integer of the grid.

        Raises:
          ValueError: `num_bits` is None: the quantizer does not round.
        """

    @property
    def spacing(self) -> int:
        """How far the levels of the grid lie apart, in integers."""
        return 1

    @abc.abstractmethod
    def scale(self, variables: Mapping[str, Any], latent: Any = None) -> tf.Tensor:
        """The real size of one integer step: float32, a scalar or one for each channel.

        Args:
          variables: what `build` returned, or the values of it.
          latent: the latent weight, for a weight quantizer.
        """

    @property
    def zero_point(self) -> int:
        """The integer that stands for 0.0."""
        return 0

    def channel_axis(self, rank: int) -> int | None:
        """The axis that `scale` runs along in a tensor of this rank, None for one scale per tensor."""
        return None

    def quant_params(self, variables: Mapping[str, Any], latent: np.ndarray | None = None) -> QuantParams:
        """The integer grid of the quantized tensor; the arguments are those of `scale`.

        Raises:
          ValueError: the quantizer has `num_bits=None` (it does not round), has seen no data yet, or its variables are
            not finite.
        """
        qmin, qmax = self.levels
        for name, value in variables.items():
            if not np.isfinite(value).all():
                raise ValueError(f"its {name} is {value}: the training diverged; load weights from before")
        scale = np.asarray(self.scale(variables, latent))
        return QuantParams(
            scale, self.zero_point, qmin, qmax, self.channel_axis(np.ndim(latent)) if scale.ndim else None
        )

    def get_config(self):
        return dataclasses.asdict(self)

    @property
    def width(self) -> int | None:
        """How many bits hold an integer of the grid; None for full precision."""
        return self.num_bits

    def require_rounding(self) -> int:
        """The width, or a ValueError if this quantizer does not round."""
        if self.width is None:
            raise ValueError(
                "its num_bits is None: it is kept in full precision and has no integer grid; give it 2 to 8 bits"
            )
        return self.width


def check_num_bits(quantizer: Quantizer, lowest: int = 2, highest: int = 8) -> None:
    """Raises unless `quantizer.num_bits` is None or an integer within `lowest` .. `highest`."""
    bits = quantizer.num_bits
    if bits is None:
        return
    name = type(quantizer).__name__
    if isinstance(bits, bool) or not isinstance(bits, int):
        raise TypeError(
            f"{name} needs an integer num_bits or None (full precision). Received: num_bits={bits!r}"
            + (". Levels that have a name are those of scheme='qn'" if isinstance(bits, str) else "")
        )
    if not lowest <= bits <= highest:
        raise ValueError(f"{name} works with {lowest} to {highest} bits. Received: num_bits={bits}")
