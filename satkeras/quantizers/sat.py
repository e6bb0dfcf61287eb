"""Scale-Adjusted Training (Jin et al., BMVC 2020; arXiv:1912.10207): DoReFa weights with a constant rescale."""

import dataclasses
from typing import Any

import tensorflow as tf

from satkeras._compat import serializable
from satkeras.formulas.weights import rescale_factor, rule_stddev, unbiased_stddev
from satkeras.quantizers.dorefa import DoReFaWeightQuantizer, magnitude_of

RESCALES = ("rules", "constant", "stddev")


@serializable
@dataclasses.dataclass(frozen=True)
class SATWeightQuantizer(DoReFaWeightQuantizer):
    """DoReFa weights, rescaled; for layers that no batch norm follows.

    Forward, Q being DoReFa's quantized weight:

      rules     Q* = Q sqrt(v / VAR[Q]), v = min(1 / n_out, 0.1 k_pool^2 / n_in)     both of SAT's training rules
      constant  Q* = Q / sqrt(n_out VAR[Q])                                          as the paper's formula has it
      stddev    Q* = Q sqrt(VAR[w] / VAR[Q])                                         as large as the latent weight

    n_out are the output units, times the kernel's area for convolutions; n_in the features that a unit of the last
    layer reads, and k_pool^2 the positions that the pool before it averages. In all other layers, and in the last one
    of an ImageNet classifier, "rules" is "constant". With 100 classes, 1280 features and a 4x4 pool the formula alone
    breaks the paper's own Rule I, and the clamped first stage hardly trains.

    VAR is the unbiased variance over the tensor, of the *quantized* weight (of the clamped one when num_bits is None).
    A tensor without variance counts as variance 1. The quantized weight is `m Q*`, the constant m being 1 or, with
    `keep_scale`, what calibration sets so that the layer starts at the scale of a pretrained weight: then the rescale
    holds the standard deviation of that weight, whatever v is. Gradient: DoReFa's, times the scale, which counts as a
    constant.

    The integers are DoReFa's; only the size of a step changes. int8 and int4 hold them as there.

    Args:
      num_bits: 2 to 8, or None for the clamped full-precision stage.
      grid: as in DoReFaWeightQuantizer.
      rescale: "rules", "constant" or "stddev".
      depthwise: whether the kernel is a depthwise one, (h, w, channels, multiplier): every element counts into n_out.
      transposed: whether it is a transposed convolution's, (h, w, out, in).
      averaged: k_pool^2, in a last layer; None in all others.
      keep_scale: whether calibration keeps the scale of a pretrained weight; otherwise the rescale decides.

    References:
      SAT, section 3 (constant rescaling, Efficient Training Rules I and II). `stddev`: the authors' code,
      `rescale_type`.
    """

    rescale: str = "rules"
    depthwise: bool = False
    transposed: bool = False
    averaged: int | None = None
    keep_scale: bool = True

    def __post_init__(self):
        super().__post_init__()
        if self.rescale not in RESCALES:
            raise ValueError(f"rescale must be one of {RESCALES}. Received: rescale={self.rescale!r}")

    def _factor(self, latent, quantized):
        if self.rescale == "stddev":
            target = unbiased_stddev(latent)
        else:
            # Keras' kernels are (h, w, in, out) and (in, out).
            inputs = 1 if self.depthwise else latent.shape[-1 if self.transposed else -2]
            outputs = latent.shape.num_elements() / inputs
            area = latent.shape[:-2].num_elements()
            averaged = self.averaged if self.rescale == "rules" else None
            target = tf.constant(rule_stddev(outputs, area * inputs, averaged), tf.float32)
        return rescale_factor(quantized, target)

    def __call__(self, inputs, training, weights, **kwargs):
        latent = tf.cast(inputs, tf.float32)
        quantized = self.normalized(latent)
        return quantized * self._factor(latent, quantized) * magnitude_of(weights)

    def latent_of(self, weight, variables):
        latent = super().latent_of(weight, variables)
        if not self.keep_scale:
            variables["magnitude"].assign(1.0)
            return latent
        kernel = tf.constant(latent, tf.float32)
        variables["magnitude"].assign(variables["magnitude"] / self._factor(kernel, self.normalized(kernel)))
        return latent

    def unrounded(self, latent, variables):
        latent = tf.cast(latent, tf.float32)
        return super().unrounded(latent, variables) * self._factor(latent, self.normalized(latent))

    def scale(self, variables, latent: Any = None):
        latent = tf.cast(latent, tf.float32)
        return super().scale(variables) * self._factor(latent, self.normalized(latent))
