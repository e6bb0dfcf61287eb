"""PACT (Choi et al. 2018, arXiv:1805.06085): activations clipped at a learned value."""

import dataclasses

import numpy as np
import tensorflow as tf

from satkeras._compat import serializable
from satkeras.formulas import kernels
from satkeras.formulas.clip_values import best_clip
from satkeras.formulas.rounding import at_least_ste, step_size
from satkeras.quantizers.base import Quantizer, QuantizerVariable, check_num_bits
from satkeras.quantizers.quant_params import activation_levels

SMALLEST_ALPHA = 1e-4


@serializable
@dataclasses.dataclass(frozen=True)
class PACTQuantizer(Quantizer):
    """Clip at a learned alpha, one per tensor, and round.

    Forward: `(alpha / a) round(a clip(x, 0, alpha) / alpha)`, `a = 2^k - 1`. Signed (two-sided): clip to
    [-alpha, alpha], `n = 2^(k-1) - 1` steps a side with zero among the levels; at 8 bits one step more below.

    Gradient: x's is 1 inside the clip, edges included (up to float32 rounding), 0 outside. alpha's is the sum of the
    incoming gradient above the clip (minus the sum below, if signed), plus, if calibrated, the rounding error
    `(y - x) / alpha` inside.

    int8 holds every width; int4 up to 3 bits unsigned, 4 signed.

    Args:
      num_bits: 2 to 8, or None (placement then leaves the tensor alone).
      signed: whether the tensor has negative values.
      calibrated: SAT's calibrated gradient of alpha (default), or PACT's own.
      initial_alpha: first clip value, in units of the tensor.
      alpha_decay: L2 penalty on alpha, `alpha_decay * alpha^2` in the loss; PACT uses its weight decay here, SAT none.

    References:
      PACT, eq. 1-3; SAT, "calibrated gradient" (CG-PACT). Initial values 8 and 10: the SAT authors' code.
    """

    num_bits: int | None = 4
    signed: bool = False
    calibrated: bool = True
    initial_alpha: float = 8.0
    alpha_decay: float = 0.0

    def __post_init__(self):
        check_num_bits(self)
        if not (np.isfinite(self.initial_alpha) and self.initial_alpha > 0):
            raise ValueError(f"initial_alpha must be positive. Received: initial_alpha={self.initial_alpha!r}")
        if not (np.isfinite(self.alpha_decay) and self.alpha_decay >= 0):
            raise ValueError(f"alpha_decay must not be negative. Received: alpha_decay={self.alpha_decay!r}")

    @property
    def declared_variables(self):
        return (QuantizerVariable("alpha", "clip", self.initial_alpha, l2=self.alpha_decay),)

    @property
    def replaces_relu(self):
        return True

    @property
    def levels(self):
        return activation_levels(self.require_rounding(), self.signed)

    def __call__(self, inputs, training, weights, **kwargs):
        alpha = at_least_ste(tf.convert_to_tensor(weights["alpha"]), SMALLEST_ALPHA)
        pact = kernels.calibrated_pact if self.calibrated else kernels.pact
        return pact(tf.cast(inputs, tf.float32), alpha, self.levels)

    def calibrate(self, values, variables):
        clip = best_clip(values, self.levels)
        if clip > SMALLEST_ALPHA:
            variables["alpha"].assign(clip)

    def scale(self, variables, latent=None):
        return step_size(tf.maximum(tf.convert_to_tensor(variables["alpha"]), SMALLEST_ALPHA), self.levels)
