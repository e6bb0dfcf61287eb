"""Tests of portable models: the file, the twin and Keras compute one thing, and every runtime at hand the same."""

import functools

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import satkeras
import tflite_export
from satkeras.models.channel_scale import ChannelScale
from tflite_export.errors import ExportError
from tflite_export.lowering.lower import make_plan
from tflite_export.operators import LinearOperator
from tflite_export.plan import KERNELS
from tflite_export.portability.plans import channels_of, prove
from tflite_export.portability.rounding_rules import levels_under_all_rules
from tflite_export.verification.interpreter import RESOLVERS, expose, open_interpreter, run
from tflite_export.verification.twin import twin_tensors


def network() -> tf_keras.Model:
    """With and without batch norms and biases, a stream with a sum, and a dense layer."""
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, use_bias=False, name="stem")(image)
    x = layers.BatchNormalization(name="stem_bn")(x)
    stream = layers.ReLU(name="stem_relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(stream)
    x = layers.Conv2D(8, 1, use_bias=False, name="project")(x)
    stream = layers.Add(name="add")([stream, x])
    x = layers.Conv2DTranspose(4, 2, strides=2, name="up")(stream)
    x = layers.BatchNormalization(name="up_bn")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(layers.ReLU(name="up_relu")(x))
    return tf_keras.Model(image, layers.Dense(3, name="logits")(x))


def images(count: int = 20) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3)).astype(np.float32)


@functools.cache
def quantized(**options) -> tf_keras.Model:
    return satkeras.quantize_model(network(), calibration_data=images(), **options)


def test_concatenations_groups_and_dilations_are_portable(tmp_path):
    tf_keras.utils.set_random_seed(1)
    image = layers.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    grouped = layers.Conv2D(8, 3, padding="same", groups=2, activation="relu")(x)
    dilated = layers.Conv2D(4, 3, padding="same", dilation_rate=2)(x)
    x = layers.Conv2D(6, 1)(layers.Concatenate()([grouped, dilated, x]))
    model = tf_keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    model = satkeras.quantize_model(model, weight_bits=4, activation_bits=4, calibration_data=images())
    path = tmp_path / "p.tflite"
    report = tflite_export.export_tflite(
        tflite_export.portable_model(model), path, portable=True, verify_data=images(100)
    )
    assert report.portability.whole and report.verification.differing == 0
    content = expose(make_plan(tflite_export.portable_model(model)), path.read_bytes())
    codes = images(100).astype(np.uint8)
    first, *others = (run(open_interpreter(content, kernels), codes) for kernels in RESOLVERS)
    for other in others:
        for expected, found in zip(first, other, strict=True):
            np.testing.assert_array_equal(found, expected)


WIDTHS = [
    {"weight_bits": 4, "activation_bits": 4},
    pytest.param({"weight_bits": 2, "activation_bits": 2, "scheme": "lsq"}, marks=pytest.mark.slow),
    {"weight_bits": 8, "activation_bits": 8},
    pytest.param({"weight_bits": 8, "activation_bits": 8, "scheme": "int8"}, marks=pytest.mark.slow),
    {"weight_bits": "ternary", "activation_bits": 2, "scheme": "qn"},
]


@functools.cache
def portable(**options) -> tf_keras.Model:
    """For tests that do not change it."""
    model = quantized(**options)
    if options.get("scheme") == "qn":
        satkeras.set_thresholds(model, images())
        satkeras.freeze(model)
    return tflite_export.portable_model(model)


@pytest.mark.parametrize("options", WIDTHS, ids=str)
def test_all_families_and_litert_s_kernels_give_the_same_integers(options, tmp_path):
    model = portable(**options)
    report = tflite_export.export_tflite(model, tmp_path / "p.tflite", verify_data=images(), portable=True)
    assert report.portability.whole and report.verification.differing == 0
    plan, content = make_plan(model), (tmp_path / "p.tflite").read_bytes()
    codes = images(50).astype(np.uint8)
    expected = twin_tensors(plan, "xnnpack")([codes])
    for kernels in KERNELS[1:]:
        for tensor, values in twin_tensors(plan, kernels)([codes]).items():
            np.testing.assert_array_equal(values, expected[tensor], f"{kernels} {tensor.name}")
    for kernels in RESOLVERS:
        results = run(open_interpreter(expose(plan, content), kernels), codes)
        for tensor, values in zip(plan.tensors, results, strict=True):
            np.testing.assert_array_equal(values, expected[tensor], f"{kernels} {tensor.name}")


def test_the_sums_of_a_whole_model_agree_one_by_one():
    plan = make_plan(portable(**WIDTHS[0]))
    for operator in plan.operators:
        if isinstance(operator, LinearOperator):
            channels = channels_of(operator)
            for channel in range(len(channels.bias)):
                one = channels.of(np.array([channel]))
                count = np.arange(-(one.below[0] // -one.divisor[0]), one.above[0] // one.divisor[0] + 1)
                sums = one.bias + one.divisor * count
                rules = [np.clip(rule, one.lowest, one.highest) for rule in levels_under_all_rules(sums, one.scales)]
                assert np.ptp(rules, axis=0).max() == 0, (operator.name, channel)


def test_the_model_itself_stays_and_the_copy_predicts_nearly_the_same():
    model = quantized(**WIDTHS[0])
    weights, layer_names = model.get_weights(), [layer.name for layer in model.layers]
    copy = tflite_export.portable_model(model)
    assert [layer.name for layer in model.layers] == layer_names
    for one, other in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert any(isinstance(layer, ChannelScale) for layer in copy.layers)
    assert copy.output_names == model.output_names
    step = float(np.ptp(model.predict(images(), verbose=0))) / 100
    assert np.abs(copy.predict(images(), verbose=0) - model.predict(images(), verbose=0)).mean() < 3 * step


@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_a_saved_copy_is_as_portable(ending, tmp_path):
    copy = portable(**WIDTHS[2])
    satkeras.save_model(copy, tmp_path / f"model{ending}")
    loaded = satkeras.load_model(tmp_path / f"model{ending}")
    np.testing.assert_array_equal(loaded.predict(images(), verbose=0), copy.predict(images(), verbose=0))
    assert prove(make_plan(loaded)) == prove(make_plan(copy))


def test_a_portable_model_of_a_portable_model_is_the_same():
    copy = portable(**WIDTHS[2])
    again = tflite_export.portable_model(copy)
    assert [layer.name for layer in again.layers] == [layer.name for layer in copy.layers]
    assert prove(make_plan(again)) == prove(make_plan(copy))


def test_it_trains_on_and_is_then_decided_anew(tmp_path):
    copy = tflite_export.portable_model(quantized(**WIDTHS[0]))
    copy.compile(tf_keras.optimizers.SGD(0.01), "mse")
    scales = [weight for layer in copy.layers if isinstance(layer, ChannelScale) for weight in layer.weights]
    before = [weight.numpy() for weight in scales]
    copy.fit(images(), np.random.default_rng(1).uniform(0, 1, (20, 3)).astype(np.float32), verbose=0)
    assert all(np.array_equal(one, weight) for one, weight in zip(before, scales, strict=True))
    with pytest.raises(ExportError, match=r"(?s)tflite_export.portable_model\(model\).*runtimes part on"):
        tflite_export.export_tflite(copy, tmp_path / "no.tflite", portable=True)
    assert not (tmp_path / "no.tflite").exists()
    tflite_export.export_tflite(tflite_export.portable_model(copy), tmp_path / "yes.tflite", portable=True)


def test_factors_that_are_no_scales_are_refused():
    copy = portable(**WIDTHS[0])
    scale = next(layer for layer in copy.layers if isinstance(layer, ChannelScale))
    factor = scale.factor.numpy()
    for wrong in (-1.0, np.inf, np.nan):
        scale.factor.assign(factor * wrong)
        with pytest.raises(ExportError, match="its factors must be above 0 and its numbers finite"):
            make_plan(copy)
    scale.factor.assign(factor)


def test_strip_gives_the_float_model_back():
    model = quantized(**WIDTHS[0])
    stripped, other = satkeras.strip(tflite_export.portable_model(model)), satkeras.strip(model)
    assert [layer.name for layer in stripped.layers] == [layer.name for layer in other.layers]
    np.testing.assert_array_equal(stripped.predict(images(), verbose=0), other.predict(images(), verbose=0))


def test_what_cannot_be_portable_is_refused_with_its_name(tmp_path):
    x = layers.Input((4, 4, 2))
    y = layers.Softmax(name="probabilities")(layers.Dense(3, name="logits")(layers.Flatten()(x)))
    data = images()[:, :4, :4, :2]
    model = satkeras.quantize_model(tf_keras.Model(x, y), calibration_data=data)
    copy = tflite_export.portable_model(model)
    with pytest.raises(ExportError, match="SOFTMAX is computed in several ways") as error:
        tflite_export.export_tflite(copy, tmp_path / "no.tflite", portable=True)
    assert [name for name, _ in error.value.problems] == ["probabilities"]
    assert tflite_export.export_tflite(copy, tmp_path / "yes.tflite").portability is None


def test_a_model_that_nobody_quantized_is_refused():
    with pytest.raises(ValueError, match="quantize_model"):
        tflite_export.portable_model(network())
