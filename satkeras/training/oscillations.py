"""Freezing of weights that oscillate between two integers (Nagel et al., ICML 2022; arXiv:2203.11086)."""

import numpy as np
import tensorflow as tf

from satkeras._compat import keras, serializable, value_of
from satkeras.quantizers.staircases import StepQuantizer
from satkeras.training.low_bit_kernels import low_bit_kernels
from satkeras.training.schedules import value_at, with_schedule


class FreezesOscillations:
    """What an optimizer of Keras inherits from, before its own class, to freeze weights whose integers oscillate.

        @tf_keras.utils.register_keras_serializable()
        class FreezingAdam(satkeras.FreezesOscillations, tf_keras.optimizers.Adam):
            pass

    With straight-through gradients a latent weight near the edge between two integers crosses it again and again. That
    spoils the statistics of batch norms and keeps the others from settling. After every training step, for each weight
    of a kernel of fewer than 8 bits, n being its integer:

      o = whether n changed, and in the other direction than when it last changed
      f = decay o + (1 - decay) f
      m = decay n + (1 - decay) m

    A weight with `f > threshold` is frozen for good, at the level nearest to m: its latent weight stays in the middle
    of what rounds to it, whatever the scale of the kernel does. One at an end of the grid is frozen there, because the
    largest weight may be what the scale comes from.

    Attributes:
      threshold: a number, or a schedule over training steps. The authors let it fall along a cosine from 0.1 to 0.01
        (0.011 at 3 bits), `CosineDecay(0.1, steps, alpha=0.1)`; it should be some times `decay`.
      decay: how fast both averages follow, 0.01 as the authors have it.

    Its state takes 11 bytes a weight and is saved with the optimizer. `frozen_share()` says how much is frozen.

    Raises:
      ValueError: an argument is out of range; in the first training step: no kernel of fewer than 8 bits is trained, or
        one has levels that are learned (scheme "qn").

    References:
      Overcoming Oscillations in Quantization-Aware Training, iterative weight freezing; the order of updates is that of
      the authors' code, which tracks up to 4 bits.
    """

    def __init__(self, *args, threshold=0.1, decay: float = 0.01, **kwargs):
        super().__init__(*args, **kwargs)
        if not 0 < decay <= 1:
            raise ValueError(f"decay must be within 0 .. 1, without 0. Received: decay={decay!r}")
        is_schedule = isinstance(threshold, keras.optimizers.schedules.LearningRateSchedule)
        if not is_schedule and not 0 < threshold <= 1:
            raise ValueError(
                "threshold must be within 0 .. 1, without 0, or a schedule. Received: threshold=" + repr(threshold)
            )
        self.threshold, self.decay = threshold, decay

    def build(self, var_list):
        if getattr(self, "_built", False):
            return
        super().build(var_list)
        kernels = low_bit_kernels(var_list, type(self).__name__)
        self._followed = self._no_dependency({})
        self.integers, self.directions, self.frequencies, self.means, self.frozen = [], [], [], [], []
        for index, (kernel, (quantizer, variables)) in enumerate(kernels):
            if isinstance(quantizer, StepQuantizer):
                raise ValueError(
                    f"{type(self).__name__} freezes weights on a grid. Received: {kernel.name!r} of scheme 'qn', whose "
                    "levels are learned"
                )
            self._followed[self._var_key(kernel)] = index, quantizer, variables
            now = quantizer.integers(kernel, variables)
            for slots, name, initial in (
                (self.integers, "integer", tf.cast(now, tf.int8)),
                (self.directions, "direction", tf.zeros_like(now, tf.int8)),
                (self.frequencies, "frequency", tf.zeros_like(now)),
                (self.means, "mean", now),
                (self.frozen, "frozen", tf.zeros_like(now, tf.bool)),
            ):
                slots.append(self._slot(kernel, name, initial))

    def _slot(self, kernel, name: str, initial) -> tf.Variable:
        # Keras' own gives every variable the kernel's dtype.
        with tf.distribute.get_strategy().extended.colocate_vars_with(kernel):
            variable = tf.Variable(initial, trainable=False, name=f"{name}/{kernel._shared_name}")
        self._variables.append(variable)
        return variable

    def update_step(self, gradient, variable):
        followed = self._followed.get(self._var_key(variable))
        if followed is None:
            super().update_step(gradient, variable)
            return
        index, quantizer, variables = followed
        before = tf.identity(variable)
        super().update_step(gradient, variable)
        # Frozen ones first: the scale may be that of the largest of all.
        variable.assign(tf.where(self.frozen[index], before, variable))
        self._freeze(variable, index, quantizer, variables)

    def _freeze(self, latent, index: int, quantizer, variables):
        slots = (self.integers, self.directions, self.frequencies, self.means, self.frozen)
        last, direction, frequency, mean, frozen = (slot[index] for slot in slots)
        now, before = quantizer.integers(latent, variables), tf.cast(last, tf.float32)
        change = tf.sign(now - before)
        oscillates = tf.cast(change * tf.cast(direction, tf.float32) < 0, tf.float32)
        frequency.assign(self.decay * oscillates + (1 - self.decay) * frequency)
        threshold = value_at(self.threshold, self.iterations)
        newly = tf.logical_and(frequency > threshold, tf.logical_not(frozen))
        inside = tf.logical_and(now > float(quantizer.levels[0]), now < float(quantizer.levels[1]))
        chosen = tf.where(tf.logical_and(newly, inside), quantizer.nearest_levels(mean), now)
        settled = tf.where(frozen, before, chosen)
        mean.assign(self.decay * now + (1 - self.decay) * mean)
        direction.assign(tf.where(change == 0, direction, tf.cast(change, tf.int8)))
        frozen.assign(tf.logical_or(frozen, newly))
        last.assign(tf.cast(settled, tf.int8))
        latent.assign(tf.where(frozen, quantizer.latent_at(settled, latent, variables), latent))

    def frozen_share(self) -> float:
        """The share of weights of fewer than 8 bits that are frozen by now."""
        values = [value_of(one).ravel() for one in getattr(self, "frozen", [])]
        return float(np.concatenate(values).mean()) if values else 0.0

    def get_config(self):
        return {
            **super().get_config(),
            "threshold": self._serialize_hyperparameter(self.threshold),
            "decay": self.decay,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return super().from_config(with_schedule(config, "threshold", custom_objects), custom_objects)


@serializable
class FreezingSGD(FreezesOscillations, keras.optimizers.SGD):
    """Keras' SGD that freezes weights whose integers oscillate, see `FreezesOscillations`.

    threshold = tf_keras.optimizers.schedules.CosineDecay(0.1, steps, alpha=0.1)
    q.compile(satkeras.FreezingSGD(0.01, momentum=0.9, threshold=threshold), "sparse_categorical_crossentropy")
    """
