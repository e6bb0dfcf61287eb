"""Quantizers that this project does not know: their integers are in the file exactly, or they are refused.

A refusal has the numbers and a way out, and comes before training where the scheme alone tells.
"""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

import satkeras
import tflite_export
from satkeras.quantizers import MaxWeightQuantizer, MovingRangeQuantizer, Quantizer
from satkeras.quantizers.base import QuantizerVariable
from tflite_export import ExportError
from tflite_export.lowering.grids import activation_params
from tflite_export.lowering.pending import Problem

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
        rounded = self.spaced * tf.round(levels / self.spaced) + self.noise
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


def fits(grid: str, bits: int) -> bool:
    low, high, zero_point = WEIGHT_GRIDS[grid](bits)
    return max(high - zero_point, zero_point - low) <= 127


@pytest.mark.parametrize("grid", WEIGHT_GRIDS)
def test_weight_grids_that_int8_holds(grid, exported):
    """Every width that fits, each in some layer of a network; every other one with a scale for each channel."""
    plain = dataclasses.replace(satkeras.SCHEMES["int8"], first_layer_bits=None, last_layer_bits=None)
    widths = [bits for bits in range(2, 9) if fits(grid, bits)]
    for start in range(0, len(widths), 4):
        quantizers = {
            name: StrangersWeights(bits, grid, per_channel=bits % 2 == 0)
            for name, bits in zip("abcd", widths[start : start + 4], strict=False)
        }
        overrides = {
            name: dataclasses.replace(plain, weights=quantizer, lone_weights=quantizer)
            for name, quantizer in quantizers.items()
        }
        model = satkeras.quantize_model(network(), plain, overrides=overrides, calibration_data=IMAGES)
        integers = satkeras.integer_weights(model)
        for name, quantizer in quantizers.items():
            assert integers[f"quant_{name}"].num_bits == quantizer.num_bits
            assert len(np.unique(integers[f"quant_{name}"].integers)) > 2
        assert exported(model).differing == 0


@pytest.mark.parametrize("grid", ["twos_complement", "unsigned"])
def test_a_weight_of_minus_128_has_no_place(grid, exported, tmp_path):
    """Whether the grid's last integer occurs, only the weights tell; a negative gamma mirrors it to 128."""
    model = quantized(StrangersWeights(8, grid), bits=8)
    message = r"1 of its weights are (-128 .. -128|128 .. 128) on their grid .*: use a symmetric grid -127 .. 127, or 7"
    assert_refused(model, tmp_path, message)
    # It does not occur where positive weights are the largest.
    float_model = network()
    for name in "abcd":
        kernel, bias = float_model.get_layer(name).weights
        kernel.assign(tf.where(kernel == tf.reduce_max(tf.abs(kernel)), kernel, tf.abs(kernel) - 0.1))
    scheme = dataclasses.replace(
        satkeras.SCHEMES["int8"], weights=StrangersWeights(8, grid), lone_weights=StrangersWeights(8, grid)
    )
    model = satkeras.quantize_model(float_model, scheme, weight_bits=8, activation_bits=8, calibration_data=IMAGES)
    assert all(weight.integers.min() > weight.params.qmin for weight in satkeras.integer_weights(model).values())
    assert exported(model).differing == 0


@pytest.mark.parametrize(
    ("grid", "bits", "integers"),
    [("positive", 8, "0 .. 255"), ("lopsided", 8, "-1 .. 254"), ("powers_of_two", 5, "-16384 .. 16384")],
)
def test_weight_grids_that_int8_cannot_hold_are_refused_before_training(grid, bits, integers):
    message = (
        r"the integers of these quantizers:\n  'a', 'b', 'c', 'd', StrangersWeights: its weight grid has "
        f"the integers {integers} around zero; .* Give it fewer bits"
    )
    with pytest.raises(ValueError, match=message):
        quantized(StrangersWeights(bits, grid), bits=bits)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("grid", ["lopsided", "symmetric", "with_zero_point"])
def test_activation_grids_that_int8_holds(grid, bits, exported):
    assert exported(quantized(activations=StrangersActivations(bits, grid), bits=bits)).differing == 0


@pytest.mark.parametrize(
    ("grid", "reason"),
    [
        (
            "all_of_nine_bits",
            r"its grid has the integers 0 .. 511, 512 of them; int8 holds 256. Give it 8 bits or fewer",
        ),
        ("from_one", r"0.0 is the integer 0 of its grid, outside 1 .. 15; TFLite pads with 0.0, which must be a level"),
    ],
)
def test_activation_grids_that_int8_cannot_hold_are_refused_before_training(grid, reason):
    with pytest.raises(ValueError, match=rf"'a.*StrangersActivations: {reason}"):
        quantized(activations=StrangersActivations(4, grid))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"spaced": 3, "grid": "with_zero_point"}, "lie 3 integers apart; .* state the grid with 3 times the scale"),
        ({"stated_step": 2.0}, r"states a grid of -8 .. 7 in steps of .* but makes .*: state the levels"),
        ({"stated_step": 0.5}, r"states a grid of -8 .. 7 in steps of .* but makes"),
        ({"stated_step": 1.01}, r"states a grid of -8 .. 7 in steps of .* but makes"),
        ({"noise": 0.1}, r"states a grid of -8 .. 7 in steps of .* but makes"),
        ({"noise": 1.0}, r"states a grid of -8 .. 7 in steps of .* but makes"),
        ({"noise": float("nan")}, r"states a grid of -8 .. 7 in steps of .* but makes nan"),
        ({"stated_levels": (-7, 7)}, r"states a grid of -7 .. 7 in steps of .* but makes"),
        ({"stated_levels": (-8, 8)}, r"states a grid of -8 .. 8 in steps of .* but makes"),
    ],
    ids=str,
)
def test_activations_that_are_not_as_stated(options, reason):
    with pytest.raises(Problem, match=reason):
        activation_params(StrangersActivations(4, **options), {"step": tf.Variable(0.37)})


def test_a_network_with_activations_that_are_not_as_stated(tmp_path):
    model = quantized(activations=StrangersActivations(4, noise=0.1))
    assert_refused(model, tmp_path, r"quant_norm_output: its quantizer states a grid of -8 .. 7 in steps of .* but")


@pytest.mark.parametrize("step", [1e-6, 0.37, 1 / 3, 1e6])
@pytest.mark.parametrize("bits", [2, 5, 8])
@pytest.mark.parametrize("grid", ["lopsided", "symmetric", "with_zero_point"])
def test_activations_that_are_as_stated(grid, bits, step):
    params = activation_params(StrangersActivations(bits, grid), {"step": tf.Variable(step)})
    assert (params.qmin, params.qmax, params.zero_point) == ACTIVATION_GRIDS[grid](bits)
    assert params.scale == np.float32(step)


def test_activations_with_a_scale_for_each_channel(tmp_path):
    """Where the channels are four: at the input of the depthwise and of the 1x1 convolution."""
    model = satkeras.quantize_model(
        network(),
        dataclasses.replace(satkeras.SCHEMES["int8"], first_layer_bits=None),
        weight_bits=8,
        activation_bits=8,
        overrides={
            name: dataclasses.replace(
                satkeras.SCHEMES["int8"], activations=StrangersActivations(4, "symmetric", per_channel=True)
            )
            for name in "bc"
        },
        calibration_data=IMAGES,
    )
    assert_refused(model, tmp_path, "its grid has 4 scales, one for each channel; .* give its quantizer a scalar scale")


@tf_keras.utils.register_keras_serializable(package="strangers")
@dataclasses.dataclass(frozen=True)
class LyingWeights(MaxWeightQuantizer):
    """States the grid of its parent; its results lie elsewhere."""

    stated: float = 1.0
    beyond: float = 0.0

    def scale(self, variables, latent=None):
        return super().scale(variables, latent) * self.stated

    def __call__(self, inputs, training, weights, **kwargs):
        scale = MaxWeightQuantizer.scale(self, weights, inputs)
        scale = scale[:, None] if self.depthwise else scale
        return (tf.round(inputs / scale) + self.beyond) * scale


@pytest.mark.parametrize("options", [{"stated": 1.01}, {"stated": 0.5}, {"stated": 2.0}, {"beyond": 0.1}], ids=str)
def test_weights_that_are_not_as_stated(options, tmp_path):
    model = quantized(LyingWeights(4, **options))
    assert_refused(model, tmp_path, "quant_a: Values must lie on the grid .* Received: a value .* of a step away")


def test_weights_that_are_as_stated(exported):
    assert exported(quantized(LyingWeights(4))).differing == 0


# Signed tensors below 8 bits are stored in units of their clip value: only weighted sums can read them.


def narrow_streams(head) -> tf_keras.Model:
    scheme = dataclasses.replace(satkeras.SCHEMES["int8"], streams=MovingRangeQuantizer(4))
    image = layers.Input((6, 6, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", name="a")(image)
    model = tf_keras.Model(image, head(x))
    return satkeras.quantize_model(model, scheme, weight_bits=8, activation_bits=8, calibration_data=IMAGES)


@pytest.mark.parametrize(
    ("head", "reader"),
    [
        (lambda x: layers.Softmax()(x), "SOFTMAX"),
        (lambda x: layers.Conv2D(2, 1)(layers.Add()([x, layers.Conv2D(4, 1)(x)])), "ADD"),
    ],
    ids=["softmax", "add"],
)
def test_units_that_the_reader_would_not_know(head, reader, tmp_path):
    model = narrow_streams(head)
    assert_refused(model, tmp_path, f"{reader} cannot read .*, a signed tensor below 8 bits, .*: give it 8 bits")


def test_a_narrow_signed_output_has_its_own_units(exported):
    assert exported(narrow_streams(lambda x: x)).differing == 0


# Sums that int32 does not hold.


def test_sums_beyond_int32(tmp_path):
    image = layers.Input((160, 160, 3), name="image")
    model = tf_keras.Model(image, layers.Dense(2, name="d")(layers.Flatten()(image)))
    model.get_layer("d").kernel.assign(np.tile([[0.01, -0.01]], (160 * 160 * 3, 1)))
    images = np.stack([np.full((160, 160, 3), value, np.float32) for value in (0, 100, 255)])
    int8 = {"weight_bits": 8, "activation_bits": 8, "calibration_data": images}
    refused = satkeras.quantize_model(model, "int8", **int8)
    with pytest.raises(ExportError, match=r"can reach 2,48\d,\d{3},\d{3} .* wrap beyond .*: shrink its input"):
        tflite_export.export_tflite(refused, tmp_path / "net.tflite")
    # The way out that the error names.
    pooled = tf_keras.Model(image, layers.Dense(2, name="d")(layers.Flatten()(layers.AveragePooling2D(2)(image))))
    report = tflite_export.export_tflite(
        satkeras.quantize_model(pooled, "int8", **int8), tmp_path / "net.tflite", verify_data=images
    )
    assert report.verification.differing == 0


# What is put behind a trained model.


@pytest.mark.parametrize("name", ["relu", "softmax"])
def test_an_activation_behind_the_model_is_in_the_file(name, exported):
    model = quantized()
    longer = tf_keras.Model(model.inputs, layers.Activation(name, name="last")(model.output))
    found = exported(longer)
    assert found.tensors[-1].operator == {"relu": "MAXIMUM", "softmax": "SOFTMAX"}[name]
    assert found.tensors[-1].layer_differs == 0
    # It does something: half of what was there before is cut off, or all of it turned into probabilities.
    before, after = (one.predict(IMAGES, verbose=0) for one in (model, longer))
    assert before.min() < 0 <= after.min()
    values = tflite_export.integer_model(longer).predict(IMAGES.astype(np.uint8), verbose=0)
    assert len(np.unique(values)) > 1


def test_an_activation_that_no_operator_has_is_refused(tmp_path):
    model = quantized()
    longer = tf_keras.Model(model.inputs, layers.Activation("gelu", name="last")(model.output))
    assert_refused(
        longer, tmp_path, "last: no operator for the activation 'gelu'; there are .*: let the file end before"
    )
