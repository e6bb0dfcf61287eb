"""Tests of `keras.applications` for small images."""

import numpy as np
import tf_keras

from examples import applications


def test_an_application_takes_small_grey_images():
    model = applications.application("InceptionV3", (28, 28, 1), 10)
    assert (model.input_shape, model.output_shape) == ((None, 28, 28, 1), (None, 10))
    inner = tf_keras.Model(model.input, model.get_layer("enlarge").output)
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1)).astype(np.float32)
    expected = images.repeat(3, 1).repeat(3, 2).repeat(3, 3)
    np.testing.assert_array_equal(inner(images), expected)
