"""Quantization Networks (Yang et al., CVPR 2019): quantization as a learned sum of sigmoids that become steps."""

import abc
import dataclasses

import numpy as np
import tensorflow as tf

from satkeras import clustering, quant_ops
from satkeras._compat import keras, serializable
from satkeras.qparams import activation_levels
from satkeras.quantizers.base import Quantizer
from satkeras.quantizers.integer_arithmetic import MaxWeightQuantizer, MovingRangeQuantizer

SMALLEST_SCALE = 1e-8
# Where no callback drives the temperature.
DEFAULT_TEMPERATURE = 10.0
# Values of the variable `phase`.
OFF, SOFT, FIXED = range(3)

LEVEL_SETS: dict[int | str, tuple[int, ...]] = {
    1: (-1, 1),
    "ternary": (-1, 0, 1),
    "3bit+-2": (-2, -1, 0, 1, 2),
    "3bit+-4": (-4, -2, -1, 0, 1, 2, 4),
}


@dataclasses.dataclass(frozen=True)
class StepQuantizer(Quantizer):
    """A learned staircase; what the weight and the activation quantizer of the paper have in common.

    Attributes:
      num_bits: names the levels; see the subclass.
      learn_thresholds: whether the thresholds train, too.
      gradient_temperature: the highest temperature that the gradient follows, None for no limit.
    """

    num_bits: int | str | None = 2  # type: ignore[assignment]
    learn_thresholds: bool = False
    gradient_temperature: float | None = 10.0

    def __post_init__(self):
        temperature = self.gradient_temperature
        if temperature is not None and not (np.isfinite(temperature) and temperature > 0):
            raise ValueError(
                "gradient_temperature must be positive, or None for the exact derivative. Received: "
                f"gradient_temperature={temperature!r}"
            )

    @property
    @abc.abstractmethod
    def level_set(self) -> tuple[int, ...]:
        """All integers of the grid, in order."""

    @abc.abstractmethod
    def thresholds_of(self, scaled: np.ndarray) -> np.ndarray:
        """The thresholds for values of the tensor, already times beta."""

    @property
    def levels(self):
        levels = self.level_set
        return levels[0], levels[-1]

    @property
    def spacing(self):
        return int(np.diff(self.level_set).min())

    def build(self, tensor_shape, name, layer):
        if self.num_bits is None:
            return {}

        def scalar(role, value, dtype=tf.float32, trainable=False):
            start = keras.initializers.Constant(value)
            return layer.add_weight(
                name=f"{name}_{role}", shape=(), dtype=dtype, initializer=start, trainable=trainable
            )

        thresholds = layer.add_weight(
            name=f"{name}_thresholds",
            shape=(len(self.level_set) - 1,),
            dtype=tf.float32,
            initializer="zeros",
            trainable=self.learn_thresholds,
        )
        return {
            "alpha": scalar("alpha", 1.0, trainable=True),
            # Zero until the thresholds are set.
            "beta": scalar("beta", 0.0, trainable=True),
            "thresholds": thresholds,
            "temperature": scalar("temperature", 0.0),
            "phase": scalar("phase", SOFT, tf.int32),
        }

    def calibrate(self, values, variables):
        if self.num_bits is None:
            return
        values = np.asarray(values, np.float32)
        beta = clustering.input_scale(values, self.level_set)
        variables["beta"].assign(beta)
        thresholds = self.thresholds_of(values * np.float32(beta))
        levels = np.asarray(self.level_set, np.float32)[np.searchsorted(thresholds, values * beta, side="right")]
        # The paper's 1 / beta ignores where the thresholds are; a pretrained network then starts far from itself.
        fit = float(np.vdot(values, levels)) / (float(np.vdot(levels, levels)) or 1.0)
        variables["alpha"].assign(fit if fit > 0 else 1 / beta)
        variables["thresholds"].assign(thresholds)

    def is_initialized(self, variables) -> bool:
        """Whether the thresholds have been set."""
        return float(variables["beta"]) != 0

    def move_thresholds(self, positions: np.ndarray, variables) -> None:
        """Puts the steps at these values of the tensor."""
        beta = max(float(variables["beta"]), SMALLEST_SCALE)
        variables["thresholds"].assign((positions * beta).astype(np.float32))

    @abc.abstractmethod
    def count(self, x):
        """How many values of a tensor alpha and beta act on: of a kernel all, of a batch those of one example."""

    def __call__(self, inputs, training, weights, **kwargs):
        x = tf.cast(inputs, tf.float32)
        if self.num_bits is None:
            return x
        phase = tf.convert_to_tensor(weights["phase"])
        alpha, beta = (_positive(weights[name]) for name in ("alpha", "beta"))
        thresholds = tf.convert_to_tensor(weights["thresholds"])

        def steps():
            with _thresholds_known(weights["beta"]):
                return quant_ops.unit_steps(x, alpha, beta, thresholds, self.level_set)

        def fixed():
            return tf.stop_gradient(steps())

        def sigmoids():
            temperature = tf.convert_to_tensor(weights["temperature"])
            temperature = tf.where(temperature > 0, temperature, DEFAULT_TEMPERATURE)
            factor = tf.math.rsqrt(tf.cast(self.count(x), tf.float32) * self.levels[1])  # pyright: ignore
            a, b, t = (quant_ops.scale_gradient(variable, factor) for variable in (alpha, beta, thresholds))
            with _thresholds_known(weights["beta"]):
                return quant_ops.soft_steps(x, a, b, t, temperature, self.level_set, self.gradient_temperature)

        # Identities, because a branch must not hand its own input through.
        stages = [lambda: tf.identity(x), sigmoids, fixed] if training else [lambda: tf.identity(x), steps, steps]
        return tf.switch_case(phase, stages)

    def scale(self, variables, latent=None):
        return _positive(variables["alpha"])

    def quant_params(self, variables, latent=None):
        self.require_rounding()
        if not self.is_initialized(variables):
            raise ValueError("its thresholds are still unknown: call satkeras.set_thresholds(model, images) first")
        if int(np.asarray(variables["phase"])) == OFF:
            raise ValueError('it is switched off: call satkeras.set_phase(model, "both") or train "activations" first')
        return super().quant_params(variables, latent)


@serializable
@dataclasses.dataclass(frozen=True)
class QuantizationNetworksWeightQuantizer(StepQuantizer):
    """Weights on a few integer levels times alpha, by sigmoids in training and unit steps in inference.

    Forward, with levels `Y_0 < ... < Y_n`, `s_i = Y_i - Y_(i-1)` and thresholds `b_i`:

      training   alpha (Y_0 + sum_i s_i sigma(T (beta w - b_i)))
      inference  alpha (Y_0 + sum_i s_i [beta w >= b_i])

    Gradient: the derivative of the training formula, for w, alpha, beta and (if they learn) the thresholds, see
    `quant_ops.soft_steps`. alpha and beta are one number a layer. Theirs and the thresholds' gradients, sums over N
    weights, are divided by sqrt(N p), p the largest level: without that, which the paper does not have, any learning
    rate that moves the weights throws alpha about (LSQ, section 2.2). The temperature T is a variable of the layer that
    `satkeras.callbacks` raises; without a callback it is 10.

    At first `beta = 5 p / (4 q)` with p the largest level and q the largest weight, thresholds from k-means of
    `beta w`, those next to zero at -0.05 and 0.05, and alpha the least squares fit to the weights (the paper has
    `1 / beta`, which is farther from a pretrained network); `quantize_model` sets them.

    Integer grid: the levels times alpha, within -15 .. 15. int8 holds all; int4 all but 5 bits.

    Args:
      num_bits: the levels. 1: -1, 1; "ternary" or 2: -1, 0, 1; "3bit+-2": -2 .. 2; "3bit+-4": -4, -2, -1, 0, 1, 2, 4;
        3 to 5: -n .. n with n = 2^(k-1) - 1. 8: plain 8 bits, a `MaxWeightQuantizer` takes its place; None: full
        precision.
      learn_thresholds: whether the thresholds train; the paper's experiments keep them.
      gradient_temperature: the highest temperature that the gradient follows; above it the derivative is that of the
        wider sigmoid. None for the exact derivative, which vanishes at high temperatures.

    Raises:
      TypeError, ValueError: num_bits or gradient_temperature is not one of these.

    References:
      Quantization Networks, eq. 5, 7 and section 3.3; eq. 8, 10, 11 with their misprints put right. The divisor: LSQ,
      arXiv:1902.08153.
    """

    num_bits: int | str | None = "ternary"  # type: ignore[assignment]

    def __post_init__(self):
        super().__post_init__()
        names = tuple(name for name in LEVEL_SETS if isinstance(name, str))
        _check_num_bits(self, (*range(1, 6), 8, *names))

    @property
    def level_set(self):
        if self.num_bits in LEVEL_SETS:
            return LEVEL_SETS[self.num_bits]
        top = 2 ** (_own_width(self) - 1) - 1
        return tuple(range(-top, top + 1))

    @property
    def width(self):
        if isinstance(self.num_bits, str):
            return 2 if self.num_bits == "ternary" else 3
        return self.num_bits

    def specialized(self, **facts):
        pattern = MaxWeightQuantizer(8) if self.num_bits == 8 else super()
        return pattern.specialized(**facts)

    def count(self, x):
        return tf.size(x)

    def thresholds_of(self, scaled):
        return clustering.weight_thresholds(scaled, self.level_set)


@serializable
@dataclasses.dataclass(frozen=True)
class QuantizationNetworksActivationQuantizer(StepQuantizer):
    """Activations on the integer levels 0 .. 2^k - 1 times alpha, behind a ReLU, with thresholds of their own.

    Forward, with `n = 2^k - 1` thresholds `b_i`:

      training   alpha sum_i sigma(T (beta x - b_i))
      inference  alpha sum_i [beta x >= b_i]

    Gradient: the derivative of the training formula, as for the weights, with N the values of one example.

    At first `beta = 5 n / (4 q)` with q the largest value, thresholds from k-means of `beta x`, alpha the best fit;
    `satkeras.set_thresholds` sets them from images.

    The thresholds are not evenly spaced, so the tensor is stored at 8 bits first and quantized from there: on 8-bit
    values any thresholds are thresholds between two of 256 codes, and the exporter makes a step operator of each.

    Integer grid: 0 .. 2^k - 1. int8 holds it; int4 up to 3 bits.

    Args:
      num_bits: 1 to 4. 8: plain 8 bits, a `MovingRangeQuantizer` takes its place, as it does for a tensor with negative
        values, which the levels cannot stand for; None: full precision (placement then leaves the tensor alone).
      learn_thresholds: whether the thresholds train; the paper's experiments keep them.
      gradient_temperature: the highest temperature that the gradient follows; above it the derivative is that of the
        wider sigmoid. None for the exact derivative, which vanishes at high temperatures.

    Raises:
      TypeError, ValueError: num_bits or gradient_temperature is not one of these.

    References:
      Quantization Networks, eq. 12 and section 3.3.
    """

    reads_8_bits = True

    num_bits: int | None = 2  # type: ignore[assignment]

    def __post_init__(self):
        super().__post_init__()
        _check_num_bits(self, (*range(1, 5), 8))

    @property
    def level_set(self):
        lowest, highest = activation_levels(_own_width(self), signed=False)
        return tuple(range(lowest, highest + 1))

    def specialized(self, **facts):
        plain = self.num_bits == 8 or (self.num_bits is not None and facts.get("signed", False))
        pattern = MovingRangeQuantizer(8) if plain else super()
        return pattern.specialized(**facts)

    def count(self, x):
        return tf.size(x) / tf.shape(x)[0]

    def thresholds_of(self, scaled):
        return clustering.activation_thresholds(scaled, self.level_set)


def _own_width(quantizer: StepQuantizer) -> int:
    bits = quantizer.require_rounding()
    if bits == 8:
        raise ValueError(
            f"{type(quantizer).__name__} has no levels at 8 bits: quantize_model puts another in its place"
        )
    return bits


def _check_num_bits(quantizer: StepQuantizer, known: tuple) -> None:
    bits, name = quantizer.num_bits, type(quantizer).__name__
    if bits is None:
        return
    if isinstance(bits, bool) or not isinstance(bits, (int, str)):
        raise TypeError(f"{name} needs num_bits of {known} or None (full precision). Received: num_bits={bits!r}")
    if bits not in known:
        raise ValueError(
            f"{name} works with num_bits of {known} or None. Received: num_bits={bits!r}. For other widths choose "
            "another scheme, for single layers by overrides="
        )


def _positive(scale):
    """A floor with a straight-through gradient, so that a scale driven below zero can come back."""
    scale = tf.convert_to_tensor(scale)
    return tf.stop_gradient(tf.maximum(scale, SMALLEST_SCALE)) + (scale - tf.stop_gradient(scale))


def _thresholds_known(beta):
    """A context that stops a computation, where the graph can, unless the thresholds have been set."""
    hint = "A quantizer has no thresholds yet: call satkeras.set_thresholds(model, images) first"
    known = tf.debugging.Assert(tf.not_equal(beta, 0.0), [hint])
    return tf.control_dependencies([] if known is None else [known])
