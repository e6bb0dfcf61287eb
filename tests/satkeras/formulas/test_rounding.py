"""Rounding and gradients that are not the derivative."""

import numpy as np
import pytest
import tensorflow as tf

from satkeras.formulas import rounding


def test_round_ste_rounds_ties_to_even_and_passes_the_gradient(value_and_gradients):
    value, gradient = value_and_gradients(rounding.round_ste, [-2.5, -1.5, -0.4, 0.5, 1.5, 2.6])
    np.testing.assert_array_equal(value, [-2, -2, 0, 0, 2, 3])
    np.testing.assert_array_equal(gradient, 1)


def test_round_ste_is_the_nearest_integer_bit_for_bit(value_and_gradients):
    x = np.random.default_rng(0).normal(size=10_000).astype(np.float32) * np.float32(2.0) ** np.arange(-8, 32, 0.004)
    value, _ = value_and_gradients(rounding.round_ste, x)
    np.testing.assert_array_equal(value, np.rint(x.astype(np.float32)))


def test_straight_through_has_the_value_of_one_and_the_gradient_of_the_other(value_and_gradients):
    value, of_value, of_source = value_and_gradients(
        lambda x, y: rounding.straight_through(x**2, y**2), [0.1, -3.0], [0.7, 1e6], incoming=[1.0, 2.0]
    )
    np.testing.assert_array_equal(value, np.float32([0.1, -3.0]) ** 2)
    np.testing.assert_array_equal(of_value, 0)
    np.testing.assert_allclose(of_source, [1.4, 4e6])


def test_at_least_ste_passes_the_gradient_of_what_it_lifts(value_and_gradients):
    value, gradient = value_and_gradients(lambda x: rounding.at_least_ste(x, 0.1), [-5.0, 0.1, 0.3], incoming=3.0)
    np.testing.assert_array_equal(value, np.float32([0.1, 0.1, 0.3]))
    np.testing.assert_array_equal(gradient, 3)


def test_scale_gradient_changes_nothing_else(value_and_gradients):
    x = np.float32([-1e-30, 0.1, 7e20])
    value, gradient = value_and_gradients(lambda x: rounding.scale_gradient(x, 0.3), x, incoming=[1.0, -2.0, 3.0])
    np.testing.assert_array_equal(value, x)
    np.testing.assert_array_equal(gradient, np.float32([1, -2, 3]) * np.float32(0.3))


@pytest.mark.parametrize("top", [7, 15, 31, 127, 255])
def test_a_step_size_is_the_same_number_in_graphs(top):
    largest = tf.Variable(np.random.default_rng(top).uniform(0.1, 10, 1000).astype(np.float32))

    def in_graph(step_size):
        # In a graph of fewer operators nothing is optimized.
        return tf.function(lambda: tf.stack([step_size(largest), tf.sqrt(largest), tf.exp(largest)])[0])().numpy()

    expected = largest.numpy() / np.float32(top)
    assert np.any(in_graph(lambda value: value / top) != expected)
    np.testing.assert_array_equal(in_graph(lambda value: rounding.step_size(value, (0, top))), expected)
    np.testing.assert_array_equal(rounding.step_size(largest, (0, top)), expected)
