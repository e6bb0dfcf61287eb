"""Tests of the networks with gates: what their blocks compute, and that satkeras takes them as they are."""

import numpy as np
import pytest
import tf_keras

import satkeras
from examples import gated_architectures

GATES = {
    "small_mobilenet_v3": lambda x: np.clip(x + 3, 0, 6) / 6,
    "small_efficientnet": lambda x: 1 / (1 + np.exp(-x)),
}


@pytest.fixture(scope="module", params=GATES)
def model(request):
    return getattr(gated_architectures, request.param)((32, 32, 3), 10)


def tensors(model, *names):
    """The outputs of layers for random images."""
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    found = tf_keras.Model(model.input, [model.get_layer(name).output for name in names])(images)
    return [tensor.numpy() for tensor in found]


def test_a_trained_file_has_some_hundred_kilobytes(model):
    assert 110_000 < model.count_params() < 130_000
    assert model.output_shape == (None, 10)


def test_channels_are_weighed_by_the_gate_of_their_means(model):
    excite = model.get_layer("block_1_squeeze_excite")
    filtered = tf_keras.Model(model.input, excite.input[0])
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    before = filtered(images).numpy()
    means, squeezed, widened, after = tensors(
        model, "block_1_squeeze_pool", "block_1_squeeze_reduce", "block_1_squeeze_expand", "block_1_squeeze_excite"
    )
    np.testing.assert_allclose(means, before.mean((1, 2), keepdims=True), rtol=1e-4)  # float32 sums of 256
    assert squeezed.min() >= 0
    np.testing.assert_allclose(after, before * GATES[model.name](widened), rtol=1e-4)


def test_windows_and_smooth_activations_are_those_of_the_papers(model):
    kernels = {layer.kernel_size for layer in model.layers if isinstance(layer, tf_keras.layers.DepthwiseConv2D)}
    assert kernels == {(3, 3), (5, 5)}
    batch_norm, projection = tensors(model, "stem_bn", "last_bn")
    assert batch_norm.shape[1:3] == ((32, 32) if model.name == "small_mobilenet_v3" else (16, 16))
    assert projection.shape[1:3] == (4, 4)


def test_satkeras_takes_them(model):
    assert not [finding for finding in satkeras.check_model(model).findings if finding.problem]
