"""Networks whose weights are packed: which layers, and that the file is exact in both families that run here."""

import dataclasses

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import satkeras
from satkeras.quantizers import DoReFaWeightQuantizer, SATWeightQuantizer
from tflite_export import export_tflite
from tflite_export.lowering.lower import make_plan
from tflite_export.lowering.packing import pack_weights
from tflite_export.operators import DepthwiseConvolution, FullyConnected, LinearOperator

SYMMETRIC = dataclasses.replace(
    satkeras.SCHEMES["sat"],
    weights=DoReFaWeightQuantizer(grid="symmetric"),
    lone_weights=SATWeightQuantizer(grid="symmetric"),
    first_layer_bits=None,
    last_layer_bits=None,
)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (16, 6, 6, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    tf_keras.utils.set_random_seed(0)
    image = tf_keras.Input((6, 6, 8), name="image")
    x = layers.Conv2D(16, 1, use_bias=False, name="expand")(image)
    x = layers.ReLU(name="expand_relu")(layers.BatchNormalization(name="expand_bn")(x))
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.ReLU(name="depthwise_relu")(x)
    x = layers.Conv2D(12, 1, strides=2, name="strided")(x)
    x = layers.ReLU(name="strided_relu")(x)
    return tf_keras.Model(image, layers.Dense(4, name="logits")(layers.GlobalAveragePooling2D()(x)))


def quantized(network, images, bits, activation_bits=8):
    return satkeras.quantize_model(
        network, SYMMETRIC, weight_bits=bits, activation_bits=activation_bits, calibration_data=images
    )


def bits_of(plan):
    return {op.name: (type(op).__name__, op.bits) for op in plan.operators if isinstance(op, LinearOperator)}


@pytest.mark.parametrize(("bits", "top"), [(2, 1), (3, 3), (4, 7), (5, 15)])
def test_the_width_of_packed_weights(network, images, bits, top):
    plan = make_plan(quantized(network, images, bits))
    multipliers = {op.name: float(op.multiplier.max()) for op in plan.operators if isinstance(op, LinearOperator)}
    found = bits_of(pack_weights(plan))
    for name in ("expand", "logits"):
        # Half a step of the bias must stay within half a level; 127 // top is how far int8's weights are spread.
        step = multipliers[name] * (127 // top)
        if top == 1 and step <= 1:
            stored = 2
        else:
            stored = 4 if top <= 7 and step / (7 // top) <= 1 else 8
        assert found[name][1] == stored
    assert bits == 5 or {found["expand"][1], found["logits"][1]} != {8}
    assert found["depthwise"] == ("DepthwiseConvolution", 8)  # no kernel takes packed ones exactly
    assert found["strided"] == ("Convolution", 8)


@pytest.mark.thinned(2)
@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("kernels", ["xnnpack", "reference"])
def test_a_packed_file_is_exact_and_smaller(network, images, bits, kernels, tmp_path):
    model = quantized(network, images, bits)
    reports = {
        storage: export_tflite(
            model, tmp_path / f"{storage}.tflite", verify_data=images, weight_storage=storage, kernels=kernels
        )
        for storage in ("int8", "packed")
    }
    packed = reports["packed"]
    assert packed.verification.differing == 0
    assert packed.weight_bytes < reports["int8"].weight_bytes
    assert isinstance(packed.weight_bytes, int)
    assert packed.min_runtime == {2: "2.21.0", 4: "2.11.0"}[bits]


def test_packed_weights_are_the_int8_ones(network, images):
    plan = make_plan(quantized(network, images, 4))
    for wide, narrow in zip(plan.operators, pack_weights(plan).operators, strict=True):
        if isinstance(narrow, FullyConnected) and narrow.bits == 4:
            weights = wide.weights.reshape(narrow.weights.shape)
            np.testing.assert_allclose(
                narrow.weights * narrow.weight_scale, weights * wide.weight_scale, rtol=1e-6, atol=0
            )
            # A bias in wider steps, the nearest one.
            assert (
                np.abs(narrow.bias * narrow.bias_scale - wide.bias * wide.bias_scale) <= 0.51 * narrow.bias_scale
            ).all()


def test_weights_whose_bias_would_lose_a_level_stay_wide(network, images):
    # Two-bit inputs of a layer with 8-bit outputs: one product is many output steps.
    plan = pack_weights(make_plan(quantized(network, images, 2, activation_bits=2)))
    for operator in plan.operators:
        if isinstance(operator, FullyConnected) and operator.bits < 8:
            assert operator.multiplier.max() <= 1
    assert all(op.bits == 8 for op in plan.operators if isinstance(op, DepthwiseConvolution))
