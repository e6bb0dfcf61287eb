"""Transition-rate scheduling (Lee et al., ICCV 2025; arXiv:2404.19248): a learning rate for integers that change.

What of the paper could be read: its main text, eq. 5-12. Its supplement and the authors' code could not.
"""

import numpy as np
import tensorflow as tf

from satkeras._compat import keras, serializable
from satkeras.training.low_bit_kernels import low_bit_kernels
from satkeras.training.schedules import value_at, with_schedule


@serializable
class TransitionRateSGD(keras.optimizers.SGD):
    """Gradient descent whose learning rate of quantized kernels keeps to a share of integers that change in a step.

    An integer changes when its latent weight crosses from one level's range to the next. Late in training latent
    weights lie close to such edges, and a learning rate, however small, no longer says how much the network changes.
    Here a target says that, and a learning rate U of the kernels follows from it:

      k = share of the integers that the last training step changed         (eq. 5)
      K = smoothing K + (1 - smoothing) k                                   (eq. 10)
      U = max(0, U + adaptation (R - K))                                    (eq. 11)
      w = w - U g                                                           (eq. 12)

    R is the target; g the gradient, or its first moment `g = gradient + momentum g`. One U serves all kernels of fewer
    than 8 bits, and only their integers count. All other variables (kernels of 8 bits, biases, batch norms, clip
    values) train by `learning_rate` as with Keras' SGD. Steps and scales that those
    kernels' quantizers learn (of schemes "lsq" and "qn") stay as they are: moving them would change integers, too.

        steps = epochs * len(images) // batch_size
        cosine = tf_keras.optimizers.schedules.CosineDecay
        q.compile(
            satkeras.TransitionRateSGD(cosine(0.1, steps), cosine(0.005 * bits**0.5, steps), momentum=0.9), ...
        )

    Args:
      learning_rate: of all other variables; a number or a schedule.
      target_rate: R, within 0 .. 1: a number or a schedule over training steps. The paper has 0.005 sqrt(k) for k bits,
        falling to 0 along a cosine; 0.001 to 0.008 were tried for a ResNet-20 at 2 bits, 0.004 to 0.006 were best.
      kernel_learning_rate: U at first; `learning_rate` at its first step by default.
      adaptation: how fast U follows; `kernel_learning_rate` by default.
      smoothing: how slowly K follows, within 0 .. 1.
      momentum: of all gradients.
      nesterov: whether `gradient + momentum g` takes the place of g.
      weight_decay: of all variables but those of `exclude_from_weight_decay`, times the learning rate, as Keras has it;
        for the kernels above times U.
      **kwargs: as Keras' SGD.

    Attributes:
      kernel_learning_rate: a variable, U.
      transition_rate: a variable, K.

    Both are saved with the optimizer; so a run goes on where it stopped.

    Raises:
      ValueError: an argument is out of range; in the first training step: no kernel of fewer than 8 bits is trained.

    References:
      Scheduling Weight Transitions for Quantization-Aware Training, section 4.2; section 4.3, note 2, for the scales.
      What is not in them is from summaries of the supplement by others: how kernel_learning_rate, adaptation and
      smoothing begin, the target 0.005 sqrt(k), and that all kernels share one rate. That kernels of 8 bits are left
      out is of this library; the paper has no such layers, its first and last ones are in full precision.
    """

    def __init__(
        self,
        learning_rate=0.1,
        target_rate=0.005,
        *,
        kernel_learning_rate: float | None = None,
        adaptation: float | None = None,
        smoothing: float = 0.99,
        momentum: float = 0.9,
        name: str = "TransitionRateSGD",
        **kwargs,
    ):
        super().__init__(learning_rate, momentum, name=name, **kwargs)
        first = (
            float(tf.convert_to_tensor(self.learning_rate)) if kernel_learning_rate is None else kernel_learning_rate
        )
        if not (np.isfinite(first) and first > 0):
            raise ValueError(
                "kernel_learning_rate must be positive, and so must learning_rate at its first step where it is not "
                f"given: a warm-up that begins at 0 needs it. Received: kernel_learning_rate={first!r}"
            )
        adaptation = first if adaptation is None else adaptation
        if not (np.isfinite(adaptation) and adaptation > 0):
            raise ValueError(f"adaptation must be positive. Received: adaptation={adaptation!r}")
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must be within 0 .. 1, without 1. Received: smoothing={smoothing!r}")
        if not isinstance(target_rate, keras.optimizers.schedules.LearningRateSchedule):
            if not 0 <= target_rate <= 1:
                raise ValueError(
                    "target_rate must be a share of all integers, within 0 .. 1, or a schedule of it. Received: "
                    f"target_rate={target_rate!r}"
                )
        self._first_rate, self.adaptation, self.smoothing, self.target_rate = first, adaptation, smoothing, target_rate
        self.kernel_learning_rate = self._scalar("kernel_learning_rate", first)
        self.transition_rate = self._scalar("transition_rate", 0.0)
        self._changed = self._scalar("changed", 0.0)

    def _scalar(self, name: str, initial: float) -> tf.Variable:
        return self.add_variable((), tf.float32, keras.initializers.Constant(initial), name)

    def build(self, var_list):
        if getattr(self, "_built", False):
            return
        super().build(var_list)
        kernels = low_bit_kernels(var_list, type(self).__name__)
        self._kernels = self._no_dependency({self._var_key(kernel): of for kernel, of in kernels})
        held = (variable for _, (_, variables) in kernels for variable in variables.values())
        self._held = self._no_dependency(set(map(self._var_key, held)))
        self._weights = sum(kernel.shape.num_elements() for kernel, _ in kernels)

    def update_step(self, gradient, variable):
        key = self._var_key(variable)
        if key in self._held:
            return
        if key not in self._kernels:
            super().update_step(gradient, variable)
            return
        if key == next(iter(self._kernels)):
            self._adapt()
        quantizer, variables = self._kernels[key]
        before = quantizer.integers(variable, variables)
        moment = self.momentums[self._index_dict[key]]
        moment.assign(gradient + self.momentum * moment)
        direction = gradient + self.momentum * moment if self.nesterov else moment
        if self.weight_decay and self._use_weight_decay(variable):
            direction = direction + self.weight_decay * variable
        variable.assign_sub(self.kernel_learning_rate * direction)
        changed = tf.not_equal(before, quantizer.integers(variable, variables))
        self._changed.assign_add(tf.reduce_sum(tf.cast(changed, tf.float32)))

    def _adapt(self):
        """Takes in what the last training step changed; the kernels of this one move by the new rate."""
        rate = self.smoothing * self.transition_rate + (1 - self.smoothing) * self._changed / self._weights
        target = value_at(self.target_rate, self.iterations)
        self.transition_rate.assign(rate)
        self.kernel_learning_rate.assign(tf.maximum(0.0, self.kernel_learning_rate + self.adaptation * (target - rate)))
        self._changed.assign(0.0)

    def _apply_weight_decay(self, variables):
        super()._apply_weight_decay([one for one in variables if self._var_key(one) not in self._kernels])

    def get_config(self):
        return {
            **super().get_config(),
            "target_rate": self._serialize_hyperparameter(self.target_rate),
            "kernel_learning_rate": self._first_rate,
            "adaptation": self.adaptation,
            "smoothing": self.smoothing,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return super().from_config(with_schedule(config, "target_rate", custom_objects), custom_objects)
