"""Tests of even integers in some channels."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from satkeras.quantizers import DoReFaWeightQuantizer, LSQWeightQuantizer, MaxWeightQuantizer
from satkeras.quantizers.even_channels import EvenChannelsQuantizer

OTHERS = [DoReFaWeightQuantizer(8), MaxWeightQuantizer(8), LSQWeightQuantizer(8)]


def variables_of(quantizer, kernel):
    layer = tf_keras.layers.Layer()
    variables = quantizer.build(kernel.shape, "kernel", layer)
    quantizer.calibrate(np.asarray(kernel), variables)
    return variables


@pytest.mark.parametrize("other", OTHERS, ids=repr)
@pytest.mark.parametrize("axis", [-1, -2])
def test_chosen_channels_are_even_and_nearest(other, axis):
    kernel = tf.constant(np.random.default_rng(0).normal(0, 1, (3, 3, 4, 4)), tf.float32)
    quantizer = EvenChannelsQuantizer(other, (1, 3), axis)
    variables = variables_of(quantizer, kernel)
    params = quantizer.quant_params({name: v.numpy() for name, v in variables.items()}, kernel.numpy())
    even = params.integers_of(quantizer(kernel, False, variables).numpy())
    own = params.integers_of(other(kernel, False, variables).numpy())
    chosen, kept = (np.take(even, channels, axis) for channels in ([1, 3], [0, 2]))
    np.testing.assert_array_equal(kept, np.take(own, [0, 2], axis))
    assert (chosen % 2 == 0).all() and (np.take(own, [1, 3], axis) % 2).any()
    assert np.abs(chosen - np.take(own, [1, 3], axis)).max() <= (2 if own.min() == -128 else 1)
    assert np.abs(even).max() <= 128


def test_the_gradient_is_the_other_quantizer_s():
    kernel = tf.Variable(np.random.default_rng(0).normal(0, 1, (3, 4)), dtype=tf.float32)
    found = []
    for quantizer in (OTHERS[0], EvenChannelsQuantizer(OTHERS[0], (0,))):
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(quantizer(kernel, True, variables_of(quantizer, kernel)) * tf.range(4.0))
        found.append(tape.gradient(value, kernel))
    np.testing.assert_array_equal(*found)


def test_a_config_gives_it_back():
    quantizer = EvenChannelsQuantizer(LSQWeightQuantizer(8), (0, 5), -2)
    config = tf_keras.utils.legacy.serialize_keras_object(quantizer)
    assert tf_keras.utils.legacy.deserialize_keras_object(config) == quantizer
