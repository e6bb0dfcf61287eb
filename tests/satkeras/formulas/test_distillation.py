"""The softened cross entropy of distillation."""

import numpy as np
import pytest
import tensorflow as tf

from satkeras.formulas.distillation import soft_cross_entropy


def log_softmax(logits):
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def drawn(seed, spread=3.0):
    return np.random.default_rng(seed).normal(0, spread, (6, 10))


@pytest.mark.parametrize("temperature", [1, 2.0, 4.0, 20.0])
def test_it_is_the_cross_entropy_of_softened_answers_times_the_temperature_squared(temperature):
    teacher, student = drawn(0), drawn(1)
    expected = -(np.exp(log_softmax(teacher / temperature)) * log_softmax(student / temperature)).sum(-1)
    found = soft_cross_entropy(tf.constant(teacher, tf.float32), tf.constant(student, tf.float32), temperature)
    assert found.shape == (6,) and found.dtype == tf.float32
    np.testing.assert_allclose(found, temperature**2 * expected, rtol=1e-5)


def test_its_gradient_is_the_temperature_times_the_difference_of_the_softened_answers():
    teacher, student = drawn(0), drawn(1)
    with tf.GradientTape() as tape:
        logits = tf.constant(student, tf.float32)
        tape.watch(logits)
        loss = tf.reduce_sum(soft_cross_entropy(tf.constant(teacher, tf.float32), logits, 4.0))
    expected = 4.0 * (np.exp(log_softmax(student / 4)) - np.exp(log_softmax(teacher / 4)))
    np.testing.assert_allclose(tape.gradient(loss, logits), expected, atol=1e-5)


def test_no_gradient_goes_to_the_teacher():
    with tf.GradientTape() as tape:
        teacher = tf.constant(drawn(0), tf.float32)
        tape.watch(teacher)
        loss = soft_cross_entropy(teacher, tf.constant(drawn(1), tf.float32), 2.0)
    assert tape.gradient(loss, teacher) is None


def test_answers_beyond_doubt_have_a_finite_loss():
    certain = tf.constant([[1e4, 0.0, -1e4]])
    assert np.isfinite(soft_cross_entropy(certain, -certain, 1.0)).all()


def test_half_precision_is_computed_in_float32():
    teacher, student = (tf.constant(drawn(seed), tf.float16) for seed in (0, 1))
    expected = soft_cross_entropy(tf.cast(teacher, tf.float32), tf.cast(student, tf.float32), 4.0)
    np.testing.assert_array_equal(soft_cross_entropy(teacher, student, 4.0), expected)


def test_xla_gives_the_same():
    teacher, student = (tf.constant(drawn(seed), tf.float32) for seed in (0, 1))
    compiled = tf.function(soft_cross_entropy, jit_compile=True)
    np.testing.assert_allclose(
        compiled(teacher, student, 4.0), soft_cross_entropy(teacher, student, 4.0), rtol=1e-6, atol=1e-5
    )
