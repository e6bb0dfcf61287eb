"""What Keras users do with a model, done with a quantized one."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

import satkeras
from satkeras._compat import output_variables, weight_variables
from satkeras.models.insertion import has_quantizer, quantizes_tensor

CROSSENTROPY = "sparse_categorical_crossentropy"


class Counting(tf_keras.Model):
    """A model with a training step of its own."""

    def train_step(self, data):
        return {**super().train_step(data), "batch": tf.shape(data[0])[0]}


class Tracking(tf_keras.Model):
    """A model with a constructor of its own, that takes what Keras' takes."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.extra = tf_keras.metrics.Mean(name="extra")


class Accumulating(tf_keras.Model):
    """A model that adds up the gradients of two halves of a batch and applies their mean."""

    def train_step(self, data):
        x, y = data
        total = None
        for half in (slice(None, 8), slice(8, None)):
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x[half], y[half], self(x[half], training=True))
            gradients = tape.gradient(loss, self.trainable_variables)
            total = gradients if total is None else [a + b for a, b in zip(total, gradients, strict=True)]
        means = [gradient / 2 for gradient in total]
        self.optimizer.apply_gradients(zip(means, self.trainable_variables, strict=True))
        return {}


def as_class(cls, model):
    return cls(model.input, model.output, name=model.name)


def plain_model(shape=(8, 8, 3)):
    """No batch norm and no moving range: halves of a batch make the whole."""
    inputs = tf_keras.Input(shape, name="image")
    x = layers.Conv2D(4, 3, activation="relu", name="first")(inputs)
    x = layers.Conv2D(4, 3, activation="relu", name="second")(x)
    return tf_keras.Model(inputs, layers.Dense(5, activation="softmax", name="kind")(layers.Flatten(name="flat")(x)))


def trained(model, images, epochs=2, rate=0.01, **options):
    model.compile(tf_keras.optimizers.SGD(rate), CROSSENTROPY, **options)
    model.fit(*images, batch_size=8, epochs=epochs, shuffle=False, verbose=0)
    return model


def flat_weights(model):
    return np.concatenate([np.ravel(value) for value in model.get_weights()])


@pytest.mark.parametrize(
    "options", [{"run_eagerly": True}, {"jit_compile": True}, {"steps_per_execution": 2}], ids=lambda x: next(iter(x))
)
def test_every_way_to_run_a_step_trains_alike(options, residual_model, images):
    model = satkeras.quantize_model(residual_model, weight_bits=8, activation_bits=8)
    copy = tf_keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    before = flat_weights(model)
    expected = flat_weights(trained(copy, images))
    found = flat_weights(trained(model, images, **options))
    # Sums in another order let a few values round to the next of 255 levels.
    assert np.linalg.norm(expected - before) > 0.1
    assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected - before)


@pytest.mark.parametrize("cls", [Counting, Tracking, tf_keras.Model])
def test_a_models_class_is_kept(cls, residual_model, images):
    model = satkeras.quantize_model(as_class(cls, residual_model))
    clamped = satkeras.quantize_model(as_class(cls, residual_model), weight_bits=None, activation_bits=None)
    for one in (model, satkeras.strip(model), clamped, satkeras.quantize_model(clamped)):
        assert isinstance(one, cls)
    if cls is Counting:
        model.compile("sgd", CROSSENTROPY)
        assert model.fit(*images, batch_size=8, verbose=0).history["batch"] == [8]


def test_a_class_that_takes_other_arguments_becomes_a_plain_model(residual_model):
    class Named(tf_keras.Model):
        def __init__(self, purpose, **kwargs):
            super().__init__(**kwargs)
            self.purpose = purpose

    model = Named("test", inputs=residual_model.input, outputs=residual_model.output)
    assert type(satkeras.quantize_model(model)) is type(satkeras.quantize_model(residual_model))


def test_accumulated_gradients_are_those_of_the_whole_batch(images):
    # Clip values and rounding do not depend on the batch, moving ranges do.
    pact = satkeras.quantizers.PACTQuantizer(8)
    scheme = satkeras.Scheme(last_activations=pact, streams=pact)
    whole = satkeras.quantize_model(plain_model(), scheme)
    halves = satkeras.quantize_model(as_class(Accumulating, satkeras.strip(whole)), scheme)
    before = whole.get_weights()
    for model in (whole, halves):
        model.set_weights(before)
        model.compile(tf_keras.optimizers.SGD(0.01), CROSSENTROPY)
        model.fit(*images, batch_size=16, shuffle=False, verbose=0)
    assert any(not np.array_equal(now, then) for now, then in zip(whole.get_weights(), before, strict=True))
    for variable, expected in zip(halves.weights, whole.weights, strict=True):
        np.testing.assert_allclose(variable, expected, rtol=1e-4, atol=1e-6, err_msg=variable.name)


def test_examples_of_weight_zero_teach_nothing(images):
    x, y = images
    model = satkeras.quantize_model(plain_model(), calibration_data=x)
    before = [variable.numpy() for variable in model.trainable_variables]
    model.compile(tf_keras.optimizers.SGD(0.1), CROSSENTROPY)
    model.fit(x, y, sample_weight=np.zeros(len(x)), verbose=0)
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    model.fit(x, y, sample_weight=np.ones(len(x)), verbose=0)
    assert any(not np.array_equal(*pair) for pair in zip(model.trainable_variables, before, strict=True))


def two_of_each():
    left, right = (tf_keras.Input((8, 8, 3), name=name) for name in ("left", "right"))
    convolution = layers.Conv2D(4, 3, activation="relu", name="shared")
    x = layers.Add(name="sum")([convolution(left), convolution(right)])
    x = layers.Flatten(name="flat")(x)
    return {"left": left, "right": right}, {
        "kind": layers.Dense(5, activation="softmax", name="kind")(x),
        "size": layers.Dense(1, name="size")(x),
    }


@pytest.mark.parametrize("structure", ["names", "dicts"])
def test_several_inputs_and_outputs_by_name(structure, images):
    x, y = images
    inputs, outputs = two_of_each()
    if structure == "names":
        inputs, outputs = list(inputs.values()), list(outputs.values())
    model = satkeras.quantize_model(tf_keras.Model(inputs, outputs))
    model.compile("sgd", {"kind": CROSSENTROPY, "size": "mse"}, loss_weights={"kind": 1.0, "size": 0.1})
    given = {"left": x, "right": x[::-1]}
    history = model.fit(given, {"kind": y, "size": np.ones((16, 1))}, verbose=0).history
    assert {"kind_loss", "size_loss"} < history.keys()
    predicted = model.predict(given, verbose=0)
    if structure == "dicts":
        assert {name: value.shape for name, value in predicted.items()} == {"kind": (16, 5), "size": (16, 1)}
        assert satkeras.strip(model).predict(given, verbose=0).keys() == predicted.keys()
    else:
        assert [value.shape for value in predicted] == [(16, 5), (16, 1)]


def test_outputs_keep_their_names_through_every_stage(residual_model):
    clamped = satkeras.quantize_model(residual_model, weight_bits=None, activation_bits=None)
    model = satkeras.quantize_model(clamped)
    assert clamped.output_names == model.output_names == ["logits"]
    assert [layer.name for layer in satkeras.strip(model).layers][-2:] == ["logits", "logits_softmax"]


def test_a_shared_layer_learns_from_all_its_calls(images):
    inputs, outputs = two_of_each()
    model = satkeras.quantize_model(tf_keras.Model(inputs, outputs["size"]), calibration_data=[images[0]] * 2)
    kernel, _, _ = weight_variables(model.get_layer("quant_shared"))
    x = tf.constant(images[0])

    def gradient(left, right):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(model({"left": left, "right": right}, training=False))
        return tape.gradient(total, kernel)

    # Biases start at zero: from an image without light nothing is learned.
    dark = tf.zeros_like(x)
    assert not np.any(gradient(dark, dark))
    assert np.any(gradient(x, dark)) and np.any(gradient(dark, x))


def test_the_summary_of_keras_names_every_layer(residual_model, capsys):
    model = satkeras.quantize_model(residual_model)
    model.summary(line_length=150)
    printed = capsys.readouterr().out
    assert all(layer.name in printed for layer in model.layers)


@pytest.fixture(params=["mixed_float16", "mixed_bfloat16"])
def policy(request):
    """A policy of mixed precision, for as long as the test runs."""
    before = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy(request.param)
    yield request.param
    tf_keras.mixed_precision.set_global_policy(before)


def test_mixed_precision_leaves_quantizers_in_float32(policy, images):
    inputs = tf_keras.Input((8, 8, 3), name="image")
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, use_bias=False, name="first")(inputs))
    x = layers.Conv2D(4, 3, name="second")(layers.ReLU(name="relu")(x))
    x = layers.Dense(5, name="logits")(layers.Flatten(name="flat")(x))
    model = tf_keras.Model(inputs, layers.Activation("softmax", dtype="float32", name="kind")(x))
    model = satkeras.quantize_model(model, weight_bits=8)
    seen = []
    for layer in model.layers:
        if has_quantizer(layer):
            *_, quantizer, variables = output_variables(layer) if quantizes_tensor(layer) else weight_variables(layer)
            seen += [variable.dtype for variable in variables.values()]
    assert {dtype for dtype in seen if dtype.is_floating} == {tf.float32}
    assert model.get_layer("quant_second").compute_dtype == policy.removeprefix("mixed_")
    assert model.get_layer("kind").compute_dtype == "float32"

    # All 255 levels of a kernel are there before its result is cast: bfloat16 holds no more than 256 of them.
    wrapper = model.get_layer("quant_second")
    kernel, quantizer, variables = weight_variables(wrapper)
    expected = quantizer(kernel, False, variables)
    assert expected.dtype == tf.float32
    used = []
    wrapper.layer.convolution_op = lambda x, kernel: used.append(kernel) or x[:, :4, :4, :4]
    wrapper(tf.zeros((1, 6, 6, 4), wrapper.compute_dtype), training=False)
    np.testing.assert_array_equal(used[0], tf.cast(expected, wrapper.compute_dtype))
    del wrapper.layer.convolution_op

    before = kernel.numpy()
    trained(model, images)
    assert kernel.dtype == tf.float32
    assert not np.array_equal(kernel, before)
