"""The optimizer of all trainings: gradient descent with Nesterov momentum, its learning rate along a cosine."""

import tf_keras as keras

import satkeras


class _SGD(keras.optimizers.SGD):
    """Gives clip values a learning rate of their own."""

    def __init__(self, model: keras.Model, alpha_learning_rate: float, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._clip_values = {variable.ref() for variable in satkeras.learned_variables(model, "clip")}
        self._alpha_learning_rate = alpha_learning_rate

    def update_step(self, gradient, variable):
        factor = self._alpha_learning_rate if variable.ref() in self._clip_values else 1.0
        super().update_step(gradient * factor, variable)


def sgd(
    model: keras.Model,
    learning_rate: float,
    steps: int,
    weight_decay: float,
    *,
    done: int = 0,
    alpha_learning_rate: float = 1.0,
) -> keras.optimizers.Optimizer:
    """An optimizer for `steps` training steps.

    Args:
      model: which it is going to train.
      learning_rate: at the first step; 0 after the last.
      steps: how many the cosine takes.
      weight_decay: of all variables but `satkeras.undecayed_variables`.
      done: after how many of the steps the training begins.
      alpha_learning_rate: that of clip values over that of all else.
    """
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    optimizer = _SGD(model, alpha_learning_rate, schedule, momentum=0.9, nesterov=True, weight_decay=weight_decay)
    optimizer.iterations.assign(done)
    optimizer.exclude_from_weight_decay(var_list=satkeras.undecayed_variables(model))
    return optimizer
