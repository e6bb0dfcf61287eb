"""What the exporter's tests share, as fixtures, because a test module cannot import another."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import satkeras
from tflite_export.file.reader import check_file, read_model
from tflite_export.file.writer import write_file
from tflite_export.lowering.lower import make_plan
from tflite_export.verification.interpreter import expose, open_interpreter
from tflite_export.verification.kernels import kernel_problems
from tflite_export.verification.verify import breaches, verify


def _random_images(model, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (count, *x.shape[1:])).astype(np.float32) for x in model.inputs]


@pytest.fixture(scope="session")
def random_images():
    """A function for `count` images of noise, 0 .. 255, for each input of a model."""
    return _random_images


@pytest.fixture(scope="session")
def trained():
    """A function that quantizes a model and trains it for some steps towards random numbers."""

    def trained(model, steps=1, rate=0.01, images=None, **options):
        quantized = satkeras.quantize_model(model, **options)
        images = images or _random_images(model, 8)
        rng = np.random.default_rng(1)
        targets = [rng.uniform(0, 1, (len(images[0]), *y.shape[1:])).astype(np.float32) for y in quantized.outputs]
        quantized.compile(tf_keras.optimizers.SGD(rate, clipnorm=1.0), "mse", run_eagerly=steps == 1)
        for _ in range(steps):
            quantized.train_on_batch(images, targets)
        return quantized

    return trained


@pytest.fixture(scope="session")
def exported():
    """A function that plans, writes, reads back and verifies a quantized model; the file must be exact."""

    def exported(quantized, count=4):
        plan = make_plan(quantized)
        content = write_file(plan)
        check_file(plan, content, "uint8", "int8")
        assert kernel_problems(quantized, plan, read_model(content)) == []
        allocated = open_interpreter(expose(plan, content), "reference").get_output_details()
        assert [tuple(detail["shape"]) for detail in allocated] == [(1, *tensor.shape) for tensor in plan.tensors]
        verification = verify(quantized, plan, content, _random_images(quantized, count))
        assert breaches(verification) == []
        return verification

    return exported


@pytest.fixture(scope="session")
def chain(trained, exported):
    """The same for a float model: quantized, then trained for a step."""

    def chain(model, count=4, **options):
        return exported(trained(model, **options), count)

    return chain


def _residual_model():
    image = layers.Input((12, 12, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.BatchNormalization(name="stem_bn")(x)
    stream = layers.ReLU(6.0, name="stem_relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(stream)
    x = layers.Conv2D(8, 1, name="project")(x)
    x = layers.BatchNormalization(name="project_bn")(x)
    x = layers.Add(name="add")([stream, x])
    x = layers.ZeroPadding2D(1, name="pad")(x)
    x = layers.Conv2D(12, 3, strides=2, name="down")(x)
    x = layers.BatchNormalization(name="down_bn")(x)
    x = layers.ReLU(name="down_relu")(x)
    x = layers.MaxPooling2D(name="max_pool")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return tf_keras.Model(image, layers.Dense(10, activation="softmax", name="logits")(x), name="residual")


@pytest.fixture(scope="session")
def residual_model():
    """A float network with one of almost everything."""
    tf_keras.utils.set_random_seed(0)
    model = _residual_model()
    rng = np.random.default_rng(0)
    for layer in model.layers:
        layer.set_weights([values + rng.normal(0, 0.1, values.shape) ** 2 for values in layer.get_weights()])
    return model


@pytest.fixture(scope="session")
def residual(trained, residual_model):
    """The same at W4A4, trained for a few steps."""
    return trained(residual_model, steps=3)


@pytest.fixture(scope="session")
def plan(residual):
    return make_plan(residual)


@pytest.fixture(scope="session")
def content(plan):
    """The bytes of the plan's file."""
    return write_file(plan)
