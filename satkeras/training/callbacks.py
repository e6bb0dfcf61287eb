"""Keras callbacks that drive training.

Quantization Networks trains with sigmoids that become a staircase as their temperature rises. The temperatures are
variables of the model, saved with it, and a callback computes the next one from the last: a run that resumes from a
checkpoint goes on at the temperature where it stopped, whatever epoch Keras counts from. Only quantizers that train
take part: not those that `set_phase` has switched off or fixed, nor those of frozen layers.
"""

import numpy as np

from satkeras._compat import keras, value_of
from satkeras.training.phases import Staircase, required_staircases


class _Temperature(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self._trained: list[Staircase] = []

    def on_train_begin(self, logs=None):
        found = required_staircases(self.model)
        self._trained = [staircase for staircase in found if staircase.is_trained and staircase.wrapper.trainable]

    def raise_temperature(self):
        """Moves every temperature on by one."""
        for staircase in self._trained:
            temperature = staircase.variables["temperature"]
            temperature.assign(self.next_temperature(float(value_of(temperature))))

    def next_temperature(self, temperature: float) -> float:
        """What follows a temperature; 0 is that of a quantizer which was not trained."""
        raise NotImplementedError


class _Adding(_Temperature):
    def __init__(self, increase: float = 5.0, highest: float = 2000.0):
        super().__init__()
        _require_positive(increase=increase, highest=highest)
        self.increase = increase
        self.highest = highest

    def next_temperature(self, temperature):
        return min(temperature + self.increase, self.highest)


class TemperaturePerEpoch(_Adding):
    """Raises the temperature at the start of every epoch: T = increase, 2 increase, 3 increase, ...

    Args:
      increase: what each epoch adds. The paper has 10 for AlexNet and 5 for ResNets, over some 60 epochs; a shorter
        training needs more, to end as high.
      highest: where it stops.

    Raises:
      ValueError: an argument is not positive, or the model has no quantizers of scheme "qn".

    References:
      Quantization Networks, section 3.4.
    """

    def on_epoch_begin(self, epoch, logs=None):
        self.raise_temperature()


class _EveryStep(_Temperature):
    """Raises the temperature once for each training step, before it.

    With `compile(steps_per_execution=n)` Keras calls back once for n training steps: these run at the temperature of
    the first of them, and the others' rises follow together.
    """

    def __init__(self):
        super().__init__()
        self._first = 0

    def on_train_batch_begin(self, batch, logs=None):
        self._first = batch
        self.raise_temperature()

    def on_train_batch_end(self, batch, logs=None):
        for _ in range(batch - self._first):  # the last batch of the execution
            self.raise_temperature()


class TemperaturePerStep(_Adding, _EveryStep):
    """Raises the temperature before every training step: a smooth form of the paper's schedule.

    Args:
      increase: what each training step adds; the paper's schedule is 5 or 10 divided by the training steps of an epoch.
      highest: where it stops.

    Raises:
      ValueError: an argument is not positive, or the model has no quantizers of scheme "qn".
    """


class GeometricTemperature(_EveryStep):
    """Multiplies the temperature before every training step: T = lowest, lowest q, lowest q^2, ..., highest.

    Sigmoids stay soft for longer than where a constant is added, and their exact derivative
    (`gradient_temperature=None`) can follow them. Not the paper's; docs/results/fine_tuning.md has runs of both.

    Args:
      training_steps: how many lead from the lowest to the highest, q = (highest / lowest)^(1 / training_steps).
      lowest: the first temperature.
      highest: where it stops.

    Raises:
      ValueError: an argument is not positive, highest is below lowest, or the model has no quantizers of scheme "qn".
    """

    def __init__(self, training_steps: int, lowest: float = 5.0, highest: float = 300.0):
        super().__init__()
        _require_positive(training_steps=training_steps, lowest=lowest, highest=highest)
        if highest < lowest:
            raise ValueError(f"highest must not be below lowest. Received: lowest={lowest!r}, highest={highest!r}")
        self.lowest = lowest
        self.highest = highest
        self.factor = (highest / lowest) ** (1 / training_steps)

    def next_temperature(self, temperature):
        return min(max(temperature * self.factor, self.lowest), self.highest)


def _require_positive(**arguments: float) -> None:
    for name, value in arguments.items():
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive. Received: {name}={value!r}")
