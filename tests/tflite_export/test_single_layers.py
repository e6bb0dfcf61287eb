"""Models of one layer, those that tfmot's own functional test goes over: trained, exported, no integer differs.

Its list is that of `quantize_functional_test.py`, with the shapes that it has there. Of the layers that it takes none
is refused here; what only we take stands below.
"""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import satkeras
import tflite_export

VECTOR, SEQUENCE, IMAGE, VOLUME = (5,), (3, 6), (4, 6, 1), (3, 4, 6, 1)
SOME = {
    "relu": (VECTOR, lambda: layers.ReLU()),
    "softmax": (VECTOR, lambda: layers.Softmax()),
    "dropout": (VECTOR, lambda: layers.Dropout(0.2)),
    "batch norm": (IMAGE, lambda: layers.BatchNormalization()),
    "cropping 3d": (VOLUME, lambda: layers.Cropping3D()),
    "global average 3d": (VOLUME, lambda: layers.GlobalAveragePooling3D()),
    "repeat": (VECTOR, lambda: layers.RepeatVector(3)),
}
OTHERS = {
    "conv2d": (IMAGE, lambda: layers.Conv2D(4, 2)),
    "conv2d transpose": (IMAGE, lambda: layers.Conv2DTranspose(4, 2)),
    "cropping 1d": (SEQUENCE, lambda: layers.Cropping1D()),
    "cropping 2d": (IMAGE, lambda: layers.Cropping2D()),
    "upsampling 2d": (IMAGE, lambda: layers.UpSampling2D()),
    "bilinear": (IMAGE, lambda: layers.UpSampling2D(interpolation="bilinear")),
    "padding 1d": (SEQUENCE, lambda: layers.ZeroPadding1D()),
    "padding 2d": (IMAGE, lambda: layers.ZeroPadding2D()),
    "regularization": (VECTOR, lambda: layers.ActivityRegularization()),
    "dense": (VECTOR, lambda: layers.Dense(2)),
    "flatten": (VECTOR, lambda: layers.Flatten()),
    "permute": ((10, 64), lambda: layers.Permute((2, 1))),
    "reshape": (VECTOR, lambda: layers.Reshape((5, 1, 1))),
    "spatial dropout 1d": (SEQUENCE, lambda: layers.SpatialDropout1D(0.2)),
    "spatial dropout 2d": (IMAGE, lambda: layers.SpatialDropout2D(0.2)),
    "spatial dropout 3d": (VOLUME, lambda: layers.SpatialDropout3D(0.2)),
    "average 1d": (SEQUENCE, lambda: layers.AveragePooling1D()),
    "average 2d": (IMAGE, lambda: layers.AveragePooling2D()),
    "global average 1d": (SEQUENCE, lambda: layers.GlobalAveragePooling1D()),
    "global average 2d": (IMAGE, lambda: layers.GlobalAveragePooling2D()),
    "global max 1d": (SEQUENCE, lambda: layers.GlobalMaxPooling1D()),
    "global max 2d": (IMAGE, lambda: layers.GlobalMaxPooling2D()),
    "global max 3d": (VOLUME, lambda: layers.GlobalMaxPooling3D()),
    "max 2d": (IMAGE, lambda: layers.MaxPooling2D()),
    # tfmot refuses these.
    "conv1d": (SEQUENCE, lambda: layers.Conv1D(4, 2)),
    "upsampling 1d": (SEQUENCE, lambda: layers.UpSampling1D()),
    "max 1d": (SEQUENCE, lambda: layers.MaxPooling1D()),
    "upsampling 3d": (VOLUME, lambda: layers.UpSampling3D()),
    "padding 3d": (VOLUME, lambda: layers.ZeroPadding3D()),
    "average 3d": (VOLUME, lambda: layers.AveragePooling3D()),
    "max 3d": (VOLUME, lambda: layers.MaxPooling3D()),
    "mask": (IMAGE, lambda: layers.Lambda(lambda x: x * np.float32(np.eye(4, 6)[..., None]) - np.ones((4, 1, 1)))),
}


@pytest.mark.thinned(3)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(
    ("shape", "layer"),
    [
        *(pytest.param(*case, id=name) for name, case in SOME.items()),
        *(pytest.param(*case, id=name, marks=pytest.mark.slow) for name, case in OTHERS.items()),
    ],
)
def test_one_layer(shape, layer, bits, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (8, *shape)).astype(np.float32) / 255
    model = tf_keras.Sequential([layers.InputLayer(shape), layer()])
    q = satkeras.quantize_model(
        model, weight_bits=bits, activation_bits=bits, input_range=(0, 1), calibration_data=images, verbose=0
    )
    q.compile("sgd", "mse")
    q.fit(images, np.zeros((8, *model.output_shape[1:])), verbose=0)
    report = tflite_export.export_tflite(q, tmp_path / "model.tflite", verify_data=images)
    assert report.verification.differing == 0
