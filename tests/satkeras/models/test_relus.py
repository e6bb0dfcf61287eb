"""What ReLUs become where a quantizer comes next: Keras' own, result and gradient."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import satkeras
from satkeras.models.relus import AbsorbedReLU, MaskedReLU
from satkeras.quantizers import PACTQuantizer


def value_and_gradient(layer, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    return y, tape.gradient(y, x, tf.range(1.0, 1.0 + len(x)))


@pytest.mark.parametrize("max_value", [None, 6.0, 2.5])
def test_it_is_keras_relu(max_value):
    x = tf.constant([-np.inf, -3.0, -0.0, 0.0, 1e-30, 0.5, 2.4, 2.6, 5.9, 6.1, np.inf])
    found, expected = (value_and_gradient(kind(max_value), x) for kind in (MaskedReLU, tf_keras.layers.ReLU))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("num_bits", [2, 4, 8])
def test_an_absorbed_one_changes_nothing_where_a_learned_clip_follows(num_bits, calibrated):
    x = tf.constant([-np.inf, -3.0, -0.1, 1e-30, 0.01, 0.5, 1.4, 1.6, 5.9, np.inf])
    quantizer, alpha = PACTQuantizer(num_bits, calibrated=calibrated), tf.Variable(1.5)
    found = []
    for relu in (AbsorbedReLU(), tf_keras.layers.ReLU()):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = quantizer(relu(x), True, {"alpha": alpha})
        found.append((y, *tape.gradient(y, [x, alpha], tf.range(1.0, 1.0 + len(x)))))
    *exact, dalphas = zip(*found, strict=True)
    for one, other in exact:
        np.testing.assert_array_equal(one, other)
    # The calibrated gradient reads x, which is kept in 16 bits.
    np.testing.assert_allclose(*dalphas, rtol=0, atol=sum(range(1, 11)) / 130_000 if calibrated else 0)


def test_the_backward_pass_reads_only_the_mask():
    with tf.Graph().as_default() as graph:
        x, g = (tf.compat.v1.placeholder(tf.float32, (2, 3)) for _ in "xg")
        y = MaskedReLU()(x, training=True)
        forward = set(graph.get_operations())
        (dx,) = tf.gradients(y, x, g)
    read, waiting = set(), {dx.op}
    while waiting:
        for value in waiting.pop().inputs:
            if value.op in forward:
                read.add(value.ref())
            else:
                waiting.add(value.op)
    assert {value.deref().dtype for value in read - {g.ref()}} == {tf.bool}


def test_where_each_stands():
    image = tf_keras.Input((8, 8, 3))
    x = tf_keras.layers.Conv2D(4, 3)(image)
    x = tf_keras.layers.Conv2D(4, 3)(tf_keras.layers.ReLU(6.0, name="a")(x))
    x = tf_keras.layers.Conv2D(4, 3, name="c")(tf_keras.layers.ReLU(6.0, name="b")(x))
    float_model = tf_keras.Model(image, tf_keras.layers.ReLU(6.0, name="end")(x))
    model = satkeras.quantize_model(float_model, "sat", overrides={"c": "int8"})
    kinds = {name: type(model.get_layer(name)) for name in "ab"}
    assert kinds == {"a": AbsorbedReLU, "b": MaskedReLU}
    assert [model.get_layer(name).max_value for name in "ab"] == [6.0, 6.0]  # which strip gives back
    inner = satkeras.strip(model)
    assert {type(inner.get_layer(name)) for name in "ab"} == {tf_keras.layers.ReLU}
