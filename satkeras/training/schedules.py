"""Schedules over training steps where Keras' optimizers have none: for arguments beside the learning rate."""

from typing import Any

from satkeras._compat import keras


def value_at(value, step):
    """What a number, or a schedule, is at a training step."""
    return value(step) if callable(value) else value


def with_schedule(config: dict[str, Any], name: str, custom_objects=None) -> dict[str, Any]:
    """An optimizer's config with the argument `name` as it was given: a number, or a schedule for its config."""
    if not isinstance(config[name], dict):
        return config
    return {**config, name: keras.optimizers.schedules.deserialize(config[name], custom_objects)}
