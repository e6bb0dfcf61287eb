"""Models and files of Keras 3."""

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from keras import layers, ops

from satkeras import check_model, quantize_model, strip, to_keras3
from satkeras.models.activations import hard_swish
from satkeras.models.keras3 import as_tf_keras, from_keras3


@pytest.fixture(scope="module")
def new():
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Normalization()(layers.Rescaling(1 / 127.5, -1)(inputs))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same", kernel_regularizer="l2")(x))
    base = keras.Sequential([layers.Conv2D(4, 1, activation="hard_swish", name="conv"), layers.ReLU(6.0)], name="base")
    x = ops.relu(base(layers.LeakyReLU(0.1)(x)) + base(x)) * 0.5
    x = ops.concatenate([x, layers.SeparableConv2D(4, 3, padding="same", activation="hard_sigmoid")(x)], axis=-1)
    outputs = layers.Dense(3, name="out")(ops.mean(x[:, 1:], axis=(1, 2)))
    model = keras.Model({"image": inputs}, {"out": outputs}, name="new")
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(weight + rng.uniform(0, 0.5, weight.shape))
    return model


@pytest.fixture(scope="module")
def x():
    return {"image": np.random.default_rng(1).integers(0, 256, (4, 8, 8, 3)).astype(np.float32)}


def close(one, other):
    np.testing.assert_allclose(np.asarray(one["out"]), np.asarray(other["out"]), rtol=1e-4, atol=1e-5)


def test_the_same_model_in_tf_keras(new, x):
    old = from_keras3(new)
    assert isinstance(old, tf_keras.Model)
    assert old.get_layer("base").get_layer("conv").activation is hard_swish
    close(old(x), new(x))


def test_quantized_and_back(new, x):
    with pytest.warns(UserWarning, match=r"returns a tf_keras model: .* tf_keras.optimizers.Adam\(\)"):
        quantized = quantize_model(new, weight_bits=8, activation_bits=8)
    quantized.compile("sgd", "mse")
    quantized.fit(x, {"out": np.zeros((4, 3))}, verbose=0)
    stripped = strip(quantized)
    close(to_keras3(stripped)(x), stripped(x))


def test_names_that_are_no_scopes():
    inputs = keras.Input((8, 8, 3), name="my image:0")
    outputs = layers.Dense(2, name="_out put")(layers.Flatten()(layers.Conv2D(2, 3, name="a.b-c d")(inputs)))
    names = [layer.name for layer in from_keras3(keras.Model(inputs, outputs, name="a model")).layers]
    assert names == ["my_image_0", "a.b-c_d", names[2], "layer_out_put"]


OPERATIONS = {
    "sizes": lambda x: ops.tile(ops.repeat(x, 2, axis=1), [1, 1, 2, 1]),
    "axes": lambda x: ops.moveaxis(ops.swapaxes(ops.swapaxes(x, 1, 2), 1, -2), 3, 1),
    "places": lambda x: ops.take(x, [0, -1], axis=-1) + ops.flip(x, axis=(1, 2))[..., :2],
    "parts": lambda x: ops.append(ops.array_split(x, 2, axis=-1)[0], ops.hstack([x, x])[:, 4:12], axis=-1),
    "borders": lambda x: ops.image.crop_images(ops.image.pad_images(x, 1, 2, 1, 2), 1, 0, 2, 1),
    "one by one": lambda x: ops.add(*ops.unstack(x, axis=1)[:2]),
    "reductions": lambda x: ops.sum(x, axis=(1, 2)) + ops.amax(x, axis=[1, 2]) - ops.max(x, axis=(1, 2)),
    "functions": lambda x: ops.abs(x) ** 2 + ops.softplus(x) * ops.softsign(x) - ops.exp(-x) + ops.elu(x),
    "matrix": lambda x: ops.matmul(x, np.ones((4, 2), np.float32)),
    "itself": lambda x: ops.stop_gradient(ops.convert_to_tensor(x) * 2.0),
}


@pytest.mark.parametrize("function", OPERATIONS.values(), ids=OPERATIONS)
def test_operations(function):
    """`from_keras3` compares both models' results."""
    inputs = keras.Input((8, 8, 4))
    findings = check_model(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(function(inputs))))).findings
    assert not [finding for finding in findings if finding.problem], findings


class Function(layers.Layer):
    def call(self, inputs):
        return ops.flip(ops.reshape(inputs, (-1, 8, 8, 2, 2)), -1)[..., 0]


class OfTwo(layers.Layer):
    def call(self, one, other):
        return tf.nn.relu(one + other)


class Block(layers.Layer):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = layers.Conv2D(4, 1, kernel_regularizer="l2"), layers.BatchNormalization()

    def call(self, inputs, training=False):
        return inputs + ops.relu(self.norm(self.conv(inputs), training=training))


class SmallConv(layers.Conv2D):
    def __init__(self, filters, **kwargs):
        super().__init__(filters, 3, padding="same", **kwargs)


class OwnLoss(layers.Layer):
    def call(self, inputs):
        self.add_loss(ops.mean(inputs))
        return inputs


class OtherInTraining(layers.Layer):
    def call(self, inputs, training=None):
        return inputs * 2.0 if training else inputs


class OtherNumberInTraining(layers.Layer):
    def call(self, inputs, training=None):
        return inputs * (0.5 if training else 1.5)


class OwnNoise(layers.Dropout):
    def _get_noise(self):
        return 1.0


def test_a_class_that_may_train_otherwise():
    inputs = keras.Input((8, 8, 4))
    with pytest.raises(ValueError, match="OwnNoise is no Dropout: it has its own _get_noise; use Dropout"):
        from_keras3(keras.Model(inputs, OwnNoise(0.1)(inputs)))


CLASSES = {
    "function": lambda x: Function()(x),
    "of two": lambda x: OfTwo()(x, x),
    "block": lambda x: Block()(x),
    "inherited": lambda x: SmallConv(3, activation="relu")(x),
    "shared": lambda x: (lambda block: block(block(x)))(Block()),
    "over time": lambda x: layers.TimeDistributed(layers.Conv1D(2, 3))(x),
    "models over time": lambda x: layers.TimeDistributed(keras.Sequential([layers.Flatten(), layers.Dense(3)]))(x),
    "activation": lambda x: layers.Conv2D(2, 1, activation=lambda x: ops.minimum(ops.relu(x), 4.0))(x),
    "activation of Keras 3": lambda x: layers.Conv2D(2, 1, activation="hard_tanh")(x),
}


@pytest.mark.parametrize("function", CLASSES.values(), ids=CLASSES)
def test_classes(function):
    inputs = keras.Input((8, 8, 4))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(function(inputs))))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.uniform(0.1, 1, weight.shape))
    assert not [finding for finding in check_model(model).findings if finding.problem]


@pytest.mark.parametrize("cls", [OwnLoss, OtherInTraining, OtherNumberInTraining])
def test_classes_that_cannot_be_followed(cls):
    inputs = keras.Input((8, 8, 4))
    with pytest.raises(ValueError, match=rf"\({cls.__name__}\): {cls.__name__} is no class of Keras', and its call"):
        from_keras3(keras.Model(inputs, cls()(inputs)))


@pytest.mark.parametrize("version", [2, 3])
def test_files(new, x, version, tmp_path):
    model = from_keras3(new) if version == 2 else new
    model.save(tmp_path / "model.keras")
    close(as_tf_keras(tmp_path / "model.keras")(x), new(x))


@pytest.mark.parametrize("version", [2, 3])
def test_hdf5_files(version, tmp_path):
    # Of operation nodes and functions that are not Keras' own neither Keras reads what it writes there.
    new = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(2, 3, activation="relu"), layers.Flatten()])
    model = from_keras3(new) if version == 2 else new
    model.save(tmp_path / "model.h5")
    x = np.ones((2, 8, 8, 3), np.float32)
    np.testing.assert_allclose(as_tf_keras(tmp_path / "model.h5")(x), np.asarray(new(x)), rtol=1e-5, atol=1e-6)


def test_files_that_are_refused(tmp_path):
    with pytest.raises(ValueError, match="needs a model, or a .keras or .h5 file of one. Received: .*nothing is there"):
        quantize_model(str(tmp_path / "missing.keras"))
    inputs = tf_keras.Input((4,))
    dense = tf_keras.layers.Dense(2)(inputs)
    model = tf_keras.Model(inputs, tf_keras.layers.Lambda(lambda x: x * 2)(dense))
    model.save(tmp_path / "lambda.h5")
    with pytest.raises(ValueError, match="holds a Lambda, code that loading would run. If you trust the file"):
        quantize_model(tmp_path / "lambda.h5")
    tf_keras.Model(inputs, dense).save(tmp_path / "named.h5")
    with h5py.File(tmp_path / "named.h5", "a") as file:
        named = '{"module": "os", "class_name": "function", "config": "system", "registered_name": "system"}'
        file.attrs["model_config"] = file.attrs["model_config"].replace('"linear"', named)
    with pytest.raises(ValueError, match="names 'system' of the module 'os', code that loading would run"):
        quantize_model(tmp_path / "named.h5")
    model.save_weights(tmp_path / "bare.weights.h5")
    with pytest.raises(ValueError, match="holds weights alone; build the model, and call its load_weights"):
        quantize_model(tmp_path / "bare.weights.h5")


def test_layers_of_keras_3_alone():
    stack = [layers.RandomGrayscale(name="grey"), layers.Conv2D(2, 1)]
    model = keras.Sequential([keras.Input((4, 4, 3)), *stack], name="new")
    with pytest.raises(ValueError, match=r"1 layer of 'new' cannot be built in tf_keras:\n  'grey' \(RandomG"):
        quantize_model(model)


def test_no_models_for_keras_3():
    with pytest.raises(TypeError, match="to_keras3 needs a tf_keras model. Received: model=None"):
        to_keras3(None)
    quantized = quantize_model(tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(4,))]))
    with pytest.raises(ValueError, match=r"which has quantizers: to_keras3\(strip\(model\)\)"):
        to_keras3(quantized)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.blocks = [Block(), Block()]
        self.dense = layers.Dense(2)

    def call(self, inputs, training=False):
        for block in self.blocks:
            inputs = block(inputs, training=training)
        return self.dense(ops.mean(inputs, axis=(1, 2)))


def test_a_subclassed_model():
    model = Subclassed()
    with pytest.raises(ValueError, match="not built, or subclassed with a call that cannot be followed: build it"):
        from_keras3(model)
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype(np.float32)
    expected = model(x)
    np.testing.assert_allclose(from_keras3(model)(x), expected, rtol=1e-5, atol=1e-6)  # the same operators in float32
