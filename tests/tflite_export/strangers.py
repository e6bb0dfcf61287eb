"""Quantizers that the project does not know, and a network for them."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

import satkeras
import tflite_export
from satkeras.quantizers import Quantizer
from satkeras.quantizers.base import QuantizerVariable
from tflite_export import ExportError

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3)).astype(np.float32)

# Weights: the smallest and largest integer and the zero point, for k bits.
WEIGHT_GRIDS = {
    "twos_complement": lambda k: (-(2 ** (k - 1)), 2 ** (k - 1) - 1, 0),
    "symmetric": lambda k: (1 - 2 ** (k - 1), 2 ** (k - 1) - 1, 0),
    "unsigned": lambda k: (0, 2**k - 1, 2 ** (k - 1)),
    "positive": lambda k: (0, 2**k - 1, 0),
    "lopsided": lambda k: (0, 2**k - 1, 1),
    "ternary": lambda k: (-1, 1, 0),
    "powers_of_two": lambda k: (-(2 ** (2 ** (k - 1) - 2)), 2 ** (2 ** (k - 1) - 2), 0),
}


@tf_keras.utils.register_keras_serializable(package="strangers")
@dataclasses.dataclass(frozen=True)
class StrangersWeights(Quantizer):
    """`s (clip(round(w / s) + z) - z)`, s so that the largest weight is on the grid; or the nearest power of two."""

    num_bits: int | None = 4
    grid: str = "twos_complement"
    per_channel: bool = False
    depthwise: bool = False

    @property
    def levels(self):
        return WEIGHT_GRIDS[self.grid](self.require_rounding())[:2]

    @property
    def zero_point(self):
        return WEIGHT_GRIDS[self.grid](self.require_rounding())[2]

    def channel_axis(self, rank):
        if not self.per_channel or rank < 4:
            return None
        return 2 if self.depthwise else 3

    def scale(self, variables, latent=None):
        low, high = (level - self.zero_point for level in self.levels)
        axes = [axis for axis in range(len(latent.shape)) if axis != self.channel_axis(len(latent.shape))]
        latent = tf.cast(latent, tf.float32)
        above, below = tf.reduce_max(latent, axes) / high, tf.reduce_min(latent, axes) / (low or -np.inf)
        return tf.maximum(tf.maximum(above, below), 1e-6)

    def __call__(self, inputs, training, weights, **kwargs):
        scale = self.scale(weights, inputs)
        scale = scale[:, None] if self.per_channel and self.depthwise else scale
        levels = inputs / scale
        if self.grid == "powers_of_two":
            exponent = tf.maximum(tf.round(tf.math.log(tf.abs(levels) + 1e-9) / np.log(2.0)), 0.0)
            rounded = tf.where(tf.abs(levels) < 0.5, 0.0, tf.sign(levels) * tf.round(2.0**exponent))
        else:
            rounded = tf.round(levels)
        low, high = (float(level - self.zero_point) for level in self.levels)
        rounded = tf.clip_by_value(rounded, low, high)
        return scale * (levels + tf.stop_gradient(rounded - levels))


ACTIVATION_GRIDS = {
    "lopsided": lambda k: (-(2 ** (k - 1)), 2 ** (k - 1) - 1, 0),
    "symmetric": lambda k: (1 - 2 ** (k - 1), 2 ** (k - 1) - 1, 0),
    "with_zero_point": lambda k: (0, 2**k - 1, 2**k // 3),
    "from_one": lambda k: (1, 2**k - 1, 0),
    "all_of_nine_bits": lambda k: (0, 511, 0),
}


@tf_keras.utils.register_keras_serializable(package="strangers")
@dataclasses.dataclass(frozen=True)
class StrangersActivations(Quantizer):
    """A step size that calibration sets; what the class states and what it does can be set apart."""

    num_bits: int | None = 4
    grid: str = "lopsided"
    per_channel: bool = False
    spaced: int = 1
    stated_step: float = 1.0  # times the true one
    noise: float = 0.0  # in steps, off the grid
    tilt: float = 0.0  # in steps, before the rounding
    stated_levels: tuple[int, int] | None = None

    @property
    def declared_variables(self):
        return (QuantizerVariable("step", "step", 1.0, shape=(4,) if self.per_channel else ()),)

    @property
    def _true_levels(self):
        return ACTIVATION_GRIDS[self.grid](self.require_rounding())[:2]

    @property
    def levels(self):
        return self.stated_levels or self._true_levels

    @property
    def spacing(self):
        return self.spaced

    @property
    def zero_point(self):
        return ACTIVATION_GRIDS[self.grid](self.require_rounding())[2]

    def channel_axis(self, rank):
        return rank - 1 if self.per_channel else None

    def scale(self, variables, latent=None):
        return tf.convert_to_tensor(variables["step"]) * self.stated_step

    def calibrate(self, values, variables):
        reach = max(abs(level - self.zero_point) for level in self._true_levels)
        variables["step"].assign(np.full(variables["step"].shape, np.abs(values).max() / reach, np.float32))

    def __call__(self, inputs, training, weights, **kwargs):
        x = tf.cast(inputs, tf.float32)
        step = tf.convert_to_tensor(weights["step"])
        low, high = (level - self.zero_point for level in self._true_levels)
        levels = tf.clip_by_value(x / step, float(low), float(high))
        rounded = self.spaced * tf.round(levels / self.spaced + self.tilt) + self.noise
        return step * (levels + tf.stop_gradient(rounded - levels))


def network() -> tf_keras.Model:
    """A convolution with batch norm, whose gammas have both signs, a depthwise and a plain one, a dense layer."""
    image = layers.Input((6, 6, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", name="a")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.DepthwiseConv2D(3, name="b")(x)
    x = layers.Conv2D(4, 1, name="c")(x)
    model = tf_keras.Model(image, layers.Dense(3, name="d")(layers.Flatten(name="flat")(x)), name="network")
    rng = np.random.default_rng(1)
    for layer in model.layers:
        layer.set_weights([rng.normal(0.0, 0.4, values.shape) for values in layer.get_weights()])
    model.get_layer("norm").set_weights(
        [np.array([1.0, -1.5, 0.5, -0.2]), rng.normal(0, 1, 4), rng.normal(0, 1, 4), np.ones(4)]
    )
    return model


def quantized(weights=None, activations=None, bits=4) -> tf_keras.Model:
    """The network, its strangers at `bits` in every layer; everything else is plain 8 bits."""
    scheme = dataclasses.replace(satkeras.SCHEMES["int8"], first_layer_bits=None, last_layer_bits=None)
    if weights is not None:
        scheme = dataclasses.replace(scheme, weights=weights, lone_weights=weights)
    if activations is not None:
        scheme = dataclasses.replace(scheme, activations=activations, last_activations=activations)
    widths = {"weight_bits": 8 if weights is None else bits, "activation_bits": 8 if activations is None else bits}
    return satkeras.quantize_model(network(), scheme, **widths, calibration_data=IMAGES)


def assert_refused(model: tf_keras.Model, path, message: str) -> None:
    """Even if nothing is verified, and nothing is written."""
    with pytest.raises(ExportError, match=message):
        tflite_export.export_tflite(model, path / "net.tflite", verify_data=False)
    assert not list(path.iterdir())
