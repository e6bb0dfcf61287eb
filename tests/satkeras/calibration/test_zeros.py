"""A pruned kernel keeps its zeros, or its owner is told which grid would keep them."""

import dataclasses
import warnings

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import satkeras
from satkeras.quantizers import DoReFaWeightQuantizer, SATWeightQuantizer


def pruned():
    model = tf_keras.Sequential(
        [layers.InputLayer((8, 8, 3)), *(layers.Conv2D(8, 3, name=name) for name in ("a", "b", "c")), layers.Flatten()]
    )
    kernel, bias = model.get_layer("b").get_weights()
    kernel[np.abs(kernel) < np.quantile(np.abs(kernel), 0.75)] = 0
    model.get_layer("b").set_weights([kernel, bias])
    return model


SYMMETRIC = dataclasses.replace(
    satkeras.SCHEMES["sat"],
    weights=DoReFaWeightQuantizer(grid="symmetric"),
    lone_weights=SATWeightQuantizer(grid="symmetric"),
)


@pytest.mark.parametrize("scheme", [*satkeras.SCHEMES, SYMMETRIC], ids=[*satkeras.SCHEMES, "symmetric"])
def test_zeros_stay_or_a_warning_says_how(scheme):
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype(np.float32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        q = satkeras.quantize_model(pruned(), scheme, calibration_data=images)
    told = [str(warning.message) for warning in caught if "zeros" in str(warning.message)]
    weight = satkeras.integer_weights(q)["quant_b"]
    zeros = np.mean(weight.integers == weight.params.zero_point)
    if zeros >= 0.75:
        assert not told
    else:
        assert zeros == 0
        assert len(told) == 1 and "quant_b (75% zeros). The symmetric grid keeps them" in told[0]
    assert np.mean(satkeras.strip(q).get_layer("b").get_weights()[0] == 0) == pytest.approx(0.75, abs=0.01)


def test_without_pruning_there_is_no_warning(recwarn):
    satkeras.quantize_model(satkeras.strip(satkeras.quantize_model(pruned(), "int8")), weight_bits=8)
    assert not [warning for warning in recwarn if "zeros" in str(warning.message)]
