"""The optimizer of all trainings: gradient descent with Nesterov momentum, its learning rate along a cosine."""

import tf_keras as keras

# Parts of variables' names; of kernels only depthwise ones are not decayed.
NOT_DECAYED = "depthwise_kernel", "gamma", "beta", "bias", "alpha", "thresholds"


class _SGD(keras.optimizers.SGD):
    """Gives clip values a learning rate of their own."""

    def __init__(self, alpha_learning_rate: float, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._alpha_learning_rate = alpha_learning_rate

    def update_step(self, gradient, variable):
        super().update_step(gradient * self._alpha_learning_rate if "alpha" in variable.name else gradient, variable)


def sgd(
    learning_rate: float,
    steps: int,
    weight_decay: float,
    done: int = 0,
    alpha_learning_rate: float = 1.0,
) -> keras.optimizers.Optimizer:
    """An optimizer for `steps` steps.

    Args:
      learning_rate: at the first step; 0 after the last.
      steps: how many the cosine takes.
      weight_decay: of all variables but those with one of `NOT_DECAYED` in their name.
      done: after how many of the steps the training begins.
      alpha_learning_rate: that of clip values over that of all else.
    """
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    optimizer = _SGD(alpha_learning_rate, schedule, momentum=0.9, nesterov=True, weight_decay=weight_decay)
    optimizer.iterations.assign(done)
    optimizer.exclude_from_weight_decay(var_names=list(NOT_DECAYED))
    return optimizer
