"""Known architectures, narrow and on small images, through the whole chain."""

import functools

import pytest
import tf_keras

from examples import architectures

NARROW18 = ((4, 2), (6, 2), (8, 2), (10, 2))
NARROW20 = ((4, 3), (6, 3), (8, 3))
EXAMPLES = {
    "mobilenet_v1": functools.partial(architectures.mobilenet_v1, width=0.125),
    "mobilenet_v2": functools.partial(architectures.mobilenet_v2, width=0.125, last_channels=64),
    "resnet18": functools.partial(architectures.residual_network, stages=NARROW18),
    "resnet20": functools.partial(architectures.residual_network, stages=NARROW20),
    "preact_resnet20": functools.partial(architectures.residual_network, stages=NARROW20, preactivation=True),
}
APPLICATIONS = {"MobileNet": {"alpha": 0.25}, "MobileNetV2": {"alpha": 0.35}, "ResNet50": {}}


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
