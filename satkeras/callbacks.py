"""Keras callbacks that drive training.

Quantization Networks trains with sigmoids that become steps as their temperature rises. The temperatures are variables
of the model, saved with it, and the callbacks only add to them: a run that resumes from a checkpoint goes on at the
temperature where it stopped, whatever epoch Keras counts from.
"""

import numpy as np

from satkeras._compat import keras
from satkeras.phases import Staircase, required_staircases


class TemperaturePerEpoch(keras.callbacks.Callback):
    """Raises the temperature at the start of every epoch: T = increase, 2 increase, 3 increase, ...

    Only quantizers that train take part: not those that `set_phase` has switched off or fixed.

    Args:
      increase: what each epoch adds. The paper has 10 for AlexNet and 5 for ResNets, over some 60 epochs; a shorter
        training needs more, to end as high.
      highest: where it stops.

    Raises:
      ValueError: an argument is not positive, or the model has no quantizers of scheme "qn".

    References:
      Quantization Networks, section 3.4.
    """

    def __init__(self, increase: float = 5.0, highest: float = 2000.0):
        super().__init__()
        for name, value in (("increase", increase), ("highest", highest)):
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive. Received: {name}={value!r}")
        self.increase = increase
        self.highest = highest
        self._trained: list[Staircase] = []

    def on_train_begin(self, logs=None):
        found = required_staircases(self.model)
        self._trained = [staircase for staircase in found if staircase.is_trained]

    def on_epoch_begin(self, epoch, logs=None):
        self.raise_temperature()

    def raise_temperature(self):
        """Adds `increase` to every temperature."""
        for staircase in self._trained:
            temperature = staircase.variables["temperature"]
            temperature.assign(min(float(temperature) + self.increase, self.highest))


class TemperaturePerStep(TemperaturePerEpoch):
    """Raises the temperature before every training step: a smooth form of the paper's schedule.

    Args:
      increase: what each step adds; the paper's schedule is 5 or 10 divided by the steps of an epoch.
      highest: where it stops.

    Raises:
      ValueError: an argument is not positive, or the model has no quantizers of scheme "qn".
    """

    def on_epoch_begin(self, epoch, logs=None):
        pass

    def on_train_batch_begin(self, batch, logs=None):
        self.raise_temperature()
