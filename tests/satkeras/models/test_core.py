"""The core layers that Keras lacks, against slices of NumPy, and through their configs."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from satkeras.models.core import DepthToSpace, Slice, SpaceToDepth

IMAGES = np.arange(2 * 4 * 6 * 8, dtype=np.float32).reshape(2, 4, 6, 8)

LAYERS = [
    (Slice((1, 0, 2), (4, 6, 8)), IMAGES[:, 1:4, :, 2:8]),
    (Slice((0, 1, 0), (4, 6, 8), (2, 2, 3)), IMAGES[:, 0:4:2, 1:6:2, 0:8:3]),
    (DepthToSpace(2), tf.nn.depth_to_space(IMAGES, 2)),
    (SpaceToDepth(2), tf.nn.space_to_depth(IMAGES, 2)),
]


@pytest.mark.parametrize(("layer", "expected"), LAYERS)
def test_values_shapes_and_configs(layer, expected):
    again = type(layer).from_config(layer.get_config())
    np.testing.assert_array_equal(again(IMAGES), expected)
    assert tuple(layer.compute_output_shape(IMAGES.shape)) == expected.shape
    assert tuple(layer(tf_keras.Input(IMAGES.shape[1:])).shape[1:]) == expected.shape[1:]


def test_a_saved_model_finds_its_layers(tmp_path):
    image = tf_keras.Input((4, 6, 8))
    x = image
    for layer in (Slice((0, 0, 0), (4, 6, 4), name="part"), DepthToSpace(2), SpaceToDepth(2)):
        x = layer(x)
    model = tf_keras.Model(image, x)
    model.save(tmp_path / "model.keras")
    loaded = tf_keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(IMAGES), IMAGES[..., :4])


@pytest.mark.parametrize(
    ("begin", "end", "strides"), [((1,), (1,), None), ((0, 0), (1,), None), ((0,), (4,), (0,)), ((-1,), (4,), None)]
)
def test_a_slice_of_nothing_is_refused(begin, end, strides):
    with pytest.raises(ValueError, match="A slice needs 0 <= begin < end"):
        Slice(begin, end, strides)


def test_a_slice_beyond_its_input_is_refused():
    with pytest.raises(ValueError, match=r"end=\(4, 6, 9\) must lie within the input"):
        Slice((0, 0, 0), (4, 6, 9))(IMAGES)
