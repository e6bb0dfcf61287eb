"""Learned staircases: what Quantization Networks' weight and activation quantizers have in common."""

import abc
import dataclasses
from functools import partial

import numpy as np
import tensorflow as tf

from satkeras._compat import in_xla, value_of
from satkeras.formulas import clustering, kernels
from satkeras.formulas.rounding import at_least_ste, scale_gradient
from satkeras.formulas.staircases import staircase
from satkeras.quantizers.base import Quantizer, QuantizerVariable

SMALLEST_SCALE = 1e-8
# Where no callback drives the temperature.
DEFAULT_TEMPERATURE = 10.0


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

    @property
    def marks_problems(self):
        return True

    @property
    def declared_variables(self):
        if self.num_bits is None:
            return ()
        return (
            QuantizerVariable(
                "thresholds", "threshold", learned=self.learn_thresholds, shape=(len(self.level_set) - 1,)
            ),
            QuantizerVariable("alpha", "step", initial=1.0),
            # Zero until the thresholds are set.
            QuantizerVariable("beta", "scale", from_data=True),
            QuantizerVariable("temperature", "state", learned=False),
            QuantizerVariable("phase", "state", kernels.SOFT, learned=False, dtype="int32"),
        )

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

    def move_thresholds(self, positions: np.ndarray, variables) -> None:
        """Puts the steps at these values of the tensor."""
        beta = max(float(value_of(variables["beta"])), SMALLEST_SCALE)
        variables["thresholds"].assign((positions * beta).astype(np.float32))

    @abc.abstractmethod
    def count(self, x):
        """How many values of a tensor alpha and beta act on: of a kernel all, of a batch those of one example."""

    def __call__(self, inputs, training, weights, **kwargs):
        x = tf.cast(inputs, tf.float32)
        if self.num_bits is None:
            return x
        phase, temperature, thresholds, own_beta = (
            tf.convert_to_tensor(weights[name]) for name in ("phase", "temperature", "thresholds", "beta")
        )
        temperature = tf.where(temperature > 0, temperature, DEFAULT_TEMPERATURE)
        alpha, beta = (_positive(weights[name]) for name in ("alpha", "beta"))
        off = tf.equal(phase, kernels.OFF)
        x = _if_known(x, tf.not_equal(own_beta, 0.0) | off)
        if not training:
            steps = partial(staircase, x, alpha, beta, thresholds, self.level_set)
            # A branch must not hand its own input through.
            return tf.cond(off, lambda: tf.identity(x), steps)
        factor = tf.math.rsqrt(tf.cast(self.count(x), tf.float32) * self.levels[1])  # pyright: ignore
        learned = (scale_gradient(parameter, factor) for parameter in (alpha, beta, thresholds))
        return kernels.soft_staircase(
            x,
            *learned,
            temperature=temperature,
            levels=self.level_set,
            gradient_temperature=self.gradient_temperature,
            learn_thresholds=self.learn_thresholds,
            phase=phase,
        )

    def scale(self, variables, latent=None):
        return _positive(variables["alpha"])

    def quant_params(self, variables, latent=None):
        self.require_rounding()
        if not self.is_initialized(variables):
            raise ValueError("its thresholds are still unknown: call satkeras.set_thresholds(model, images) first")
        if int(np.asarray(variables["phase"])) == kernels.OFF:
            raise ValueError('it is switched off: call satkeras.set_phase(model, "both") or train "activations" first')
        return super().quant_params(variables, latent)


def _positive(scale):
    return at_least_ste(tf.convert_to_tensor(scale), SMALLEST_SCALE)


def _if_known(x, known):
    """X itself where the thresholds have been set; otherwise an error or, under XLA, which has none, NaN."""
    if in_xla():
        return tf.where(known, x, np.float32(np.nan))
    hint = "A quantizer has no thresholds yet: call satkeras.set_thresholds(model, images) first"
    check = tf.debugging.Assert(known, [hint])
    with tf.control_dependencies([] if check is None else [check]):
        return tf.identity(x)
