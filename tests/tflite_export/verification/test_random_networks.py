"""Random small networks through the whole chain: quantize, train, export, compare integers."""

import re

import numpy as np
import pytest
import tf_keras
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tf_keras import layers

from satkeras._compat import output_variables
from satkeras.models.insertion import quantizes_tensor
from tflite_export.errors import ExportError

SETTINGS = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # to shrink a network takes minutes
    suppress_health_check=list(HealthCheck),
)
bits = st.integers(2, 8)


@st.composite
def convolved(draw, x, width: int, stride: int = 1):
    """A convolution, depthwise or not, and what may follow it."""
    kernel = draw(st.sampled_from([1, 2, 3]))
    options = {"strides": stride, "padding": "same", "use_bias": draw(st.booleans())}
    if draw(st.integers(0, 3)) == 0 and width == x.shape[-1]:
        x = layers.DepthwiseConv2D(kernel, **options)(x)
    else:
        x = layers.Conv2D(width, kernel, **options)(x)
    if draw(st.integers(0, 3)):
        x = layers.BatchNormalization()(x)
    activation = draw(st.sampled_from([None, "relu", "relu6", "relu"]))
    return x if activation is None else layers.ReLU(6.0 if activation == "relu6" else None)(x)


@st.composite
def residual(draw, x):
    y = draw(convolved(draw(convolved(x, draw(st.integers(2, 6)))), x.shape[-1]))
    y = layers.Add()([x, y])
    return layers.ReLU()(y) if draw(st.booleans()) else y


@st.composite
def preactivated(draw, x):
    x = layers.ReLU()(layers.BatchNormalization()(x))
    return draw(convolved(x, draw(st.integers(2, 6))))


@st.composite
def pooled(draw, x):
    size = draw(st.sampled_from([2, (1, 2), 3]))
    pool = draw(st.sampled_from([layers.MaxPooling2D, layers.AveragePooling2D]))
    if min(x.shape[1:3]) < 3:
        return x
    return pool(size, strides=draw(st.integers(1, 2)))(x)


@st.composite
def padded(draw, x):
    x = layers.ZeroPadding2D(draw(st.sampled_from([1, ((0, 1), (0, 1)), ((1, 0), (2, 0))])))(x)
    padding = "valid" if min(x.shape[1:3]) >= 3 else "same"
    return layers.Conv2D(draw(st.integers(1, 6)), 3, strides=draw(st.integers(1, 2)), padding=padding)(x)


BLOCKS = [
    lambda x: st.tuples(st.integers(1, 8), st.integers(1, 2)).flatmap(lambda pair: convolved(x, *pair)),
    residual,
    preactivated,
    pooled,
    padded,
]


@st.composite
def networks(draw) -> tf_keras.Model:
    image = layers.Input((draw(st.integers(6, 9)), draw(st.integers(6, 9)), draw(st.integers(1, 4))))
    x = draw(convolved(image, draw(st.integers(2, 6))))
    for block in draw(st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=4)):
        x = draw(block(x))
    head = draw(st.sampled_from([layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D, layers.Flatten, None]))
    if head is not None:
        x = head()(x)
        if draw(st.booleans()):
            x = layers.BatchNormalization()(layers.Dense(draw(st.integers(1, 6)))(x))
        x = layers.Dense(draw(st.integers(2, 5)))(x)
        x = layers.Softmax()(x) if draw(st.booleans()) else x
    return tf_keras.Model(image, x)


def disturb(model: tf_keras.Model, rng: np.random.Generator) -> None:
    """Batch norms of both signs, dead and tiny channels, channels of zero weights."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            count = layer.gamma.shape[0]
            gamma = rng.choice([1, -1, 0, 1e-3, -3, 1e-9], count, p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.05])
            variance = rng.uniform(0.01, 4, count) * rng.choice([1, 1, 1, 0], count)
            layer.set_weights([gamma, rng.normal(0, 1, count), rng.normal(0, 1, count), variance])
        elif layer.get_weights():
            kernel, *rest = layer.get_weights()
            kernel[..., 0] *= rng.choice([0, 1, 1])
            layer.set_weights([kernel, *(rng.normal(0, 1, values.shape) for values in rest)])


def scale_clips(model: tf_keras.Model, factor: float) -> None:
    """Multiplies every learned clip value."""
    for layer in model.layers:
        if quantizes_tensor(layer):
            _, variables = output_variables(layer)
            if "alpha" in variables:
                variables["alpha"].assign(variables["alpha"] * factor)


@pytest.fixture(scope="module")
def outcome(trained, exported):
    """A function for what becomes of a drawn network: how many integers differ, or the exporter's refusal."""

    def outcome(data):
        model = data.draw(networks())
        disturb(model, np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))))
        scheme = data.draw(st.sampled_from(["sat", "pact", "dorefa", "int8"]))
        quantized = trained(model, scheme=scheme, weight_bits=data.draw(bits), activation_bits=data.draw(bits))
        scale_clips(quantized, data.draw(st.sampled_from([1, 1, 1, 1e-3, 1e3])))
        try:
            return exported(quantized, count=3)
        except ExportError as refusal:
            return refusal

    return outcome


REASONS = "so small beside their bias|TFLite takes|ADD takes|ADD cannot read|is no level of its input's grid"


def check(outcome, data) -> None:
    found = outcome(data)
    if isinstance(found, ExportError):
        for _, reason in found.problems:
            assert re.search(REASONS, reason), reason


@settings(SETTINGS, max_examples=20)
@given(data=st.data())
def test_the_twin_is_the_file_or_the_model_is_refused(outcome, data):
    check(outcome, data)


@pytest.mark.slow
@settings(SETTINGS, max_examples=200)
@given(data=st.data())
def test_the_twin_is_the_file_or_the_model_is_refused_at_length(outcome, data):
    check(outcome, data)
