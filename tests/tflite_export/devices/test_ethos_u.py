"""Vela's stated constraints, held against Vela itself: what it maps, what it leaves, and how it compresses."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow.lite.python import schema_py_generated as schema
from tf_keras import layers

import tflite_export
from tflite_export.devices import ethos_u
from tflite_export.file.graph import StoredOperator, StoredTensor


def tensor(shape, type="INT8", values=None):
    data = None if values is None else np.broadcast_to(np.int8(values), shape).view(np.uint8).ravel()
    return StoredTensor("x", shape, type, data)


def convolution(builtin="CONV_2D", kernel=(8, 1, 1, 8), type="INT8", values=1, **options):
    given = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1, "padding": schema.Padding.SAME}
    inputs = tensor((1, 4, 4, 8)), tensor(kernel, type, values), None
    return StoredOperator(builtin, 3, inputs, (tensor((1, 4, 4, 8)),), SimpleNamespace(**given, **options))


def pool(size, padding=schema.Padding.VALID):
    options = SimpleNamespace(filterHeight=size, filterWidth=size, strideH=1, strideW=1, padding=padding)
    return StoredOperator("AVERAGE_POOL_2D", 2, (tensor((1, 400, 400, 8)),), (tensor((1, 1, 1, 8)),), options)


def resize(size, builtin="RESIZE_BILINEAR", half=True):
    options = SimpleNamespace(alignCorners=False, halfPixelCenters=half)
    return StoredOperator(builtin, 3, (tensor((1, 4, 4, 8)),), (tensor((1, size, size, 8)),), options)


@pytest.mark.parametrize(
    ("operator", "reason"),
    [
        (convolution(), None),
        (convolution(type="INT4"), "constant weights of 8 bits are required"),
        (convolution(kernel=(1, 1, 1, 65_537), values=127), "weights of a sum of at most 8,323,072"),
        (pool(7), None),
        (pool(257), r"a pool of at most 256 x 256 is required: \(257, 257\)"),
        (pool(9, schema.Padding.SAME), "a pool with padding of at most 8"),
        (resize(8), None),
        (resize(16), r"enlarging both axes by one of \(2,\) is required: \[4, 4\] to \[16, 16\]"),
        (resize(16, "RESIZE_NEAREST_NEIGHBOR"), None),
        (StoredOperator("GATHER", 2, (tensor((256,)),), (tensor((1, 8)),), None), "Vela maps no GATHER"),
        (StoredOperator("TANH", 2, (tensor((1, 8), "INT32"),), (tensor((1, 8)),), None), "x is INT32; one of INT8"),
        (StoredOperator("ADD", 1, (tensor((1, 8), "INT32"),), (tensor((1, 8), "INT32"),), None), None),
    ],
)
def test_constraints(operator, reason):
    found = list(ethos_u.left_to_the_cpu([operator]))
    if reason is None:
        assert found == []
    else:
        ((_, said),) = found
        assert re.search(reason, said)


def test_a_wide_stride_of_a_padded_kernel():
    operator = convolution()
    operator.options.strideH = 4
    assert "stride of at most 3" in dict(ethos_u.left_to_the_cpu([operator]))["x"]
    operator.options.padding = schema.Padding.VALID
    assert list(ethos_u.left_to_the_cpu([operator])) == []


def test_packed_weights_are_refused(residual, tmp_path):
    with pytest.raises(ValueError, match="'ethos-u' takes weight_storage='int8'; 'packed' is for the targets"):
        tflite_export.export_tflite(residual, tmp_path / "net.tflite", target="ethos-u", weight_storage="packed")


def mobilenet(image):
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(16, 3, strides=2, padding="same")(image)))
    for channels, strides in ((32, 1), (64, 2), (64, 1)):
        x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.DepthwiseConv2D(3, strides, padding="same")(x)))
        x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(channels, 1)(x)))
    return layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x))


def resnet(image):
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(image)
    for channels, strides in ((16, 1), (32, 2), (64, 2)):
        y = layers.Conv2D(channels, 3, strides, padding="same", activation="relu")(x)
        y = layers.BatchNormalization()(layers.Conv2D(channels, 3, padding="same")(y))
        shortcut = x if channels == x.shape[-1] else layers.Conv2D(channels, 1, strides)(x)
        x = layers.ReLU()(layers.Add()([shortcut, y]))
    x = layers.AveragePooling2D(8)(x)  # the whole of it, as in MLPerf Tiny's ResNet-8
    return layers.Dense(10)(layers.Flatten()(x))


def odd(image):
    """Some that the NPU has not: a table of a function, a rearrangement, a wide stride of a depthwise kernel."""
    x = layers.Conv2D(8, 3, padding="same", activation="gelu")(image)
    x = layers.Lambda(lambda x: tf.nn.space_to_depth(x, 2))(x)
    x = layers.DepthwiseConv2D(5, 4, padding="same")(x)
    return layers.UpSampling2D(2)(layers.LeakyReLU()(layers.Conv2D(4, 1)(x)))


def export(trained, network, path, **options):
    image = layers.Input((32, 32, 3), name="image")
    model = trained(tf_keras.Model(image, network(image)), **options)
    return tflite_export.export_tflite(model, path, target="ethos-u", verify_data=False)


@pytest.mark.judges
@pytest.mark.parametrize("network", [mobilenet, resnet, odd])
def test_vela_leaves_what_was_predicted(network, ask, trained, tmp_path):
    report = export(trained, network, tmp_path / "net.tflite")
    answers = ask("vela", (tmp_path / "net.tflite").read_bytes())
    predicted = [note.split(": ")[1] for note in report.target_notes if note.startswith("on the CPU")]
    assert sorted(predicted) == sorted(answers["cpu"])
    assert (network is odd) == bool(predicted)
    assert answers["cycles_total"] > 0


@pytest.mark.judges
def test_fewer_bits_take_fewer_bytes(ask, trained, tmp_path):
    found = {}
    for bits in (8, 4, 2):
        export(trained, resnet, tmp_path / "net.tflite", weight_bits=bits, activation_bits=max(bits, 4))
        answers = ask("vela", (tmp_path / "net.tflite").read_bytes())
        assert answers["cpu"] == []
        found[bits] = answers["total_npu_encoded_weights"]
    assert found[4] < 0.65 * found[8] and found[2] < 0.4 * found[8], found
