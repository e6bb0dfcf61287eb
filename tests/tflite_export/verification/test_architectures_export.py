"""Known architectures, narrow and on small images, through the whole chain."""

import functools

import pytest
import tf_keras

from examples import architectures

BLOCKS_V1 = ((8, 1, 1), (16, 2, 2))
BLOCKS_V2 = ((1, 8, 1, 1), (6, 8, 2, 2), (6, 16, 2, 1))
STAGES18 = ((4, 1), (6, 1), (8, 2), (10, 1))
STAGES20 = ((4, 1), (6, 2), (8, 1))
EXAMPLES = {
    "mobilenet_v1": functools.partial(architectures.mobilenet_v1, blocks=BLOCKS_V1),
    "mobilenet_v2": functools.partial(architectures.mobilenet_v2, blocks=BLOCKS_V2, last_channels=32),
    "resnet18": functools.partial(architectures.residual_network, stages=STAGES18),
    "resnet20": functools.partial(architectures.residual_network, stages=STAGES20),
    "preact_resnet20": functools.partial(architectures.residual_network, stages=STAGES20, preactivation=True),
}
APPLICATIONS = {"MobileNet": {"alpha": 0.25}, "MobileNetV2": {"alpha": 0.35}, "ResNet50": {}}


@pytest.mark.thinned(2)
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples(chain, name):
    model = EXAMPLES[name]((16, 16, 3), 10, small_images=True)
    found = chain(model, count=3, weight_bits=4, activation_bits=4)
    assert found.differing == 0, found.first_divergence


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_kerass_own(chain, name):
    model = getattr(tf_keras.applications, name)(input_shape=(96, 96, 3), weights=None, **APPLICATIONS[name])
    found = chain(model, count=2, weight_bits=4, activation_bits=4)
    assert found.differing == 0, found.first_divergence
