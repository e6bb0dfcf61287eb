"""Keras callbacks that drive training, under the name where a Keras user looks for them."""

from satkeras.training.callbacks import GeometricTemperature, TemperaturePerEpoch, TemperaturePerStep

__all__ = ["GeometricTemperature", "TemperaturePerEpoch", "TemperaturePerStep"]
