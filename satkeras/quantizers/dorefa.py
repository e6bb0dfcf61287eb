"""DoReFa-Net (Zhou et al. 2016, arXiv:1606.06160): tanh-transformed weights, activations clipped to [0, 1]."""

import dataclasses

import numpy as np
import tensorflow as tf

from satkeras._compat import serializable
from satkeras.formulas import kernels
from satkeras.formulas.rounding import step_size
from satkeras.formulas.weights import centred_grid_ste, clamp_weights, odd_grid_ste, symmetric_grid_ste
from satkeras.quantizers.base import Quantizer, QuantizerVariable, check_num_bits
from satkeras.quantizers.quant_params import activation_levels

_ROUNDED = {"odd": odd_grid_ste, "centred": centred_grid_ste, "symmetric": symmetric_grid_ste}
GRIDS = tuple(_ROUNDED)


def magnitude_of(variables):
    """The constant m of a weight quantizer's variables, float32; 1 for a quantizer that was not built into a layer."""
    return tf.convert_to_tensor(variables.get("magnitude", 1.0), tf.float32)


@serializable
@dataclasses.dataclass(frozen=True)
class DoReFaWeightQuantizer(Quantizer):
    """DoReFa's weight quantizer.

    Forward, `t = tanh(w) / max|tanh(w)|`, `a = 2^k - 1`, `n = 2^(k-1) - 1`:

      odd grid        Q = 2 round(a (t + 1) / 2) / a - 1                       integers Q a: odd, -a .. a, no zero
      centred grid    Q = (2 min(floor(2^k (t + 1) / 2), a) + 1) / 2^k - 1     integers Q 2^k: the same
      symmetric grid  Q = round(n t) / n                                       integers Q n: -n .. n

    The centred grid has bins of one width; the odd grid's two outermost are half as wide.

    The quantized weight is `m Q`. The magnitude m is a constant: 1, as in the paper, or the largest magnitude of the
    pretrained weight that the layer was calibrated to start from.

    Gradient: straight through the rounding; tanh and the maximum are differentiated.

    int8 holds odd integers up to 7 bits (at 8 bits they would be -255 .. 255) and the symmetric grid at every width;
    int4 holds the symmetric grid only. So the default is the paper's odd grid up to 7 bits and the symmetric grid at 8.

    Args:
      num_bits: 2 to 8; None applies the tanh transform without rounding (the clamped full-precision stage of SAT).
      grid: "odd"; "centred", at 8 bits "symmetric", as a scheme's first and last layers need it; "symmetric"; or None
        for the default of the width.

    Raises:
      TypeError, ValueError: num_bits or grid is not one of these.

    References:
      DoReFa-Net, eq. 9. The centred grid: SAT's authors, in AdaBits' code. The symmetric grid: CEA N2D2,
      SAT quantizer, mode "Symmetric".
    """

    num_bits: int | None = 4
    grid: str | None = None

    def __post_init__(self):
        check_num_bits(self)
        if self.grid not in (*GRIDS, None):
            raise ValueError(f"grid must be one of {GRIDS} or None. Received: grid={self.grid!r}")
        if self.grid == "odd" and self.num_bits == 8:
            raise ValueError(
                "The odd grid at 8 bits needs integers -255 .. 255, which int8 cannot hold: use 'symmetric'"
            )

    @property
    def effective_grid(self) -> str:
        """The grid in use: `grid`, or the default of the width."""
        return "symmetric" if self.num_bits == 8 else self.grid or "odd"

    def normalized(self, latent):
        """The quantized weight in [-1, 1], before any rescale."""
        clamped = clamp_weights(tf.cast(latent, tf.float32))
        if self.num_bits is None:
            return clamped
        return _ROUNDED[self.effective_grid](clamped, self.num_bits)

    @property
    def declared_variables(self):
        return (QuantizerVariable("magnitude", "scale", initial=1.0, learned=False),)

    @property
    def ends_at_largest(self):
        return True

    def __call__(self, inputs, training, weights, **kwargs):
        return self.normalized(inputs) * magnitude_of(weights)

    def latent_of(self, weight, variables):
        largest = np.abs(weight).max()
        if largest == 0:
            return weight
        variables["magnitude"].assign(largest)
        # tanh undone. It is all but linear for small weights; large ones are kept out of its flat ends.
        return np.arctanh(weight / largest * np.tanh(min(largest, 1.0)))

    def latent_at(self, integers, latent, variables):
        largest = tf.reduce_max(tf.abs(tf.tanh(tf.cast(latent, tf.float32))))
        top = self.levels[1]
        centre = integers / float(top + 1 if self.effective_grid == "centred" else top)
        # A weight at an end may be the largest, and has to stay it.
        clamped = tf.where(tf.abs(integers) < top, centre, tf.sign(integers))
        # In float32 tanh is 1 from 9 on.
        return tf.atanh(tf.minimum(largest, 1 - 2.0**-24) * clamped)

    def unrounded(self, latent, variables):
        return clamp_weights(tf.cast(latent, tf.float32)) * magnitude_of(variables)

    @property
    def levels(self):
        bits = self.require_rounding()
        top = 2 ** (bits - 1) - 1 if self.effective_grid == "symmetric" else 2**bits - 1
        return -top, top

    @property
    def spacing(self):
        return 1 if self.effective_grid == "symmetric" else 2

    def scale(self, variables, latent=None):
        if self.effective_grid == "centred":
            return magnitude_of(variables) / 2 ** self.require_rounding()
        return step_size(magnitude_of(variables), self.levels)


@serializable
@dataclasses.dataclass(frozen=True)
class DoReFaActivationQuantizer(Quantizer):
    """DoReFa's activation quantizer: a fixed clip to [0, 1].

    Forward: `round(a clip(x, 0, 1)) / a`, `a = 2^k - 1`; signed: clip to [-1, 1], `n = 2^(k-1) - 1` steps a side.
    Gradient: 1 inside the clip, 0 outside. int8 holds the grid; int4 up to 3 bits unsigned, 4 signed.

    Args:
      num_bits: 2 to 8, or None (placement then leaves the tensor alone).
      signed: whether the tensor has negative values.

    References:
      DoReFa-Net, section 2.5. On MobileNetV2 the fixed clip is known not to converge (MQBench, arXiv:2111.03759).
    """

    num_bits: int | None = 4
    signed: bool = False

    def __post_init__(self):
        check_num_bits(self)

    @property
    def levels(self):
        return activation_levels(self.require_rounding(), self.signed)

    def __call__(self, inputs, training, weights, **kwargs):
        return kernels.clip_and_round(tf.cast(inputs, tf.float32), tf.constant(1.0), self.levels)

    def scale(self, variables, latent=None):
        return tf.constant(1 / self.levels[1], tf.float32)
