"""Average pools on the grid of their input, against whole numbers in NumPy."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import satkeras
from satkeras._compat import output_variables
from satkeras.models.core import Mean
from satkeras.models.pooling import GridAveragePooling2D, GridGlobalAveragePooling2D


def pooled_model(pool, *behind, size=8):
    image = tf_keras.Input((size, size, 2), name="image")
    x = pool(layers.Conv2D(3, 1, activation="relu", name="conv")(image))
    for layer in behind:
        x = layer(x)
    return tf_keras.Model(image, x)


def halves_away_from_int8_zero(integers, axes):
    """The mean of unsigned 8-bit codes, as AVERAGE_POOL_2D rounds it: on the int8 values, ties away from their zero."""
    stored = integers.astype(np.int64) - 128
    total, count = stored.sum(axes), np.prod([stored.shape[axis] for axis in axes])
    return np.sign(total) * ((np.abs(total) + count // 2) // count) + 128


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(0, 256, (16, 8, 8, 2)).astype(np.float32)


def stored_before(model, name):
    """The stored codes of what the pool reads, and the size of a step."""
    (layer,) = [layer for layer in model.layers if layer.name == name]
    quantizer, variables = output_variables(layer)
    step = float(quantizer.scale(variables))
    return tf_keras.Model(model.input, layer.output), step


def test_a_global_mean_is_rounded_to_its_inputs_grid(noise):
    pool = layers.GlobalAveragePooling2D(name="pool")
    model = satkeras.quantize_model(pooled_model(pool, layers.Dense(2)), "int8", calibration_data=noise)
    pool = model.get_layer("pool")
    assert isinstance(pool, GridGlobalAveragePooling2D)
    before, step = stored_before(model, "quant_conv_relu_output")
    codes = np.rint(before.predict(noise, verbose=0) / step)
    means = tf_keras.Model(model.input, pool.output).predict(noise, verbose=0)
    found = np.rint(means / step)
    np.testing.assert_array_equal(found, halves_away_from_int8_zero(codes, (1, 2)))
    np.testing.assert_array_equal(means, np.float32(step) * found.astype(np.float32))


def test_a_mean_before_no_kernel_has_a_finer_grid(noise):
    pool = layers.GlobalAveragePooling2D(name="pool")
    model = satkeras.quantize_model(pooled_model(pool, layers.Softmax()), "int8", calibration_data=noise)
    assert isinstance(model.get_layer("pool"), Mean)
    (_, coarse), (_, fine) = (stored_before(model, f"quant_{name}_output") for name in ("conv_relu", "pool"))
    assert fine < 0.8 * coarse


def test_a_mean_that_a_kernel_reads_elsewhere_keeps_its_grid(noise):
    pool = layers.GlobalAveragePooling2D(name="pool")
    float_model = pooled_model(pool)
    float_model = tf_keras.Model(float_model.input, [float_model.output, layers.Dense(2)(float_model.output)])
    model = satkeras.quantize_model(float_model, "int8", calibration_data=noise)
    assert isinstance(model.get_layer("pool"), GridGlobalAveragePooling2D)


def test_windows_at_the_border_count_what_lies_inside(noise):
    pool = layers.AveragePooling2D(3, 2, padding="same", name="pool")
    model = satkeras.quantize_model(pooled_model(pool), "int8", calibration_data=noise)
    assert isinstance(model.get_layer("pool"), GridAveragePooling2D)
    before, step = stored_before(model, "quant_conv_relu_output")
    codes = np.rint(before.predict(noise, verbose=0) / step)
    found = np.rint(model.predict(noise, verbose=0) / step)
    corner = codes[:, 6:, 6:]  # the last of 4 windows over 8 pixels: one pixel of padding behind
    np.testing.assert_array_equal(found[:, 3, 3], halves_away_from_int8_zero(corner, (1, 2)))


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    ("window", "strides"), [((1, 4), (1, 4)), ((3, 2), (1, 2)), ((2, 5), (4, 6)), ((3, 3), (3, 2))]
)
def test_any_window_and_strides(noise, window, strides, padding):
    pool = layers.AveragePooling2D(window, strides, padding, name="pool")
    model = satkeras.quantize_model(pooled_model(pool), "int8", calibration_data=noise)
    before, step = stored_before(model, "quant_conv_relu_output")
    codes = np.rint(before.predict(noise, verbose=0) / step)
    found = np.rint(model.predict(noise, verbose=0) / step)
    sizes = [
        -(-8 // stride) if padding == "same" else (8 - size) // stride + 1
        for size, stride in zip(window, strides, strict=True)
    ]
    assert found.shape[1:3] == tuple(sizes)
    for place in np.ndindex(*sizes):
        ends = []
        for index, size, stride, count in zip(place, window, strides, sizes, strict=True):
            padded = max((count - 1) * stride + size - 8, 0) if padding == "same" else 0
            first = index * stride - padded // 2
            ends.append(slice(max(first, 0), first + size))
        rows, columns = ends
        expected = halves_away_from_int8_zero(codes[:, rows, columns], (1, 2))
        np.testing.assert_array_equal(found[:, place[0], place[1]], expected, err_msg=str(place))


def test_training_does_not_round(noise):
    model = satkeras.quantize_model(
        pooled_model(layers.GlobalAveragePooling2D(name="pool")), "int8", calibration_data=noise
    )
    before, step = stored_before(model, "quant_conv_relu_output")
    pool = model.get_layer("pool")
    values = before(noise, training=False)
    np.testing.assert_allclose(pool(values, training=True), np.mean(values, (1, 2)), rtol=1e-6)


def test_without_a_grid_a_pool_averages(noise):
    model = satkeras.quantize_model(
        pooled_model(layers.GlobalAveragePooling2D(name="pool")), "int8", activation_bits=None
    )
    x = tf_keras.Model(model.input, model.get_layer("pool").input).predict(noise, verbose=0)
    np.testing.assert_allclose(model.predict(noise, verbose=0), x.mean((1, 2)), rtol=1e-6)


def test_a_pool_that_is_called_twice_knows_both_its_inputs(noise):
    image = tf_keras.Input((8, 8, 2), name="image")
    pool = layers.GlobalAveragePooling2D(name="pool")
    small = layers.Conv2D(3, 1, activation="relu", name="small")(image)
    large = layers.Conv2D(3, 1, activation="relu", kernel_initializer="ones", name="large")(image)
    outputs = [layers.Dense(2, name=f"{name}_dense")(pool(x)) for name, x in (("small", small), ("large", large))]
    model = satkeras.quantize_model(tf_keras.Model(image, outputs), "int8", calibration_data=noise)
    for name in ("small", "large"):
        means = model.get_layer(f"quant_{name}_dense").input
        found = tf_keras.Model(model.input, means).predict(noise, verbose=0)
        before, step = stored_before(model, f"quant_{name}_relu_output")
        codes = np.rint(before.predict(noise, verbose=0) / step)
        np.testing.assert_array_equal(np.rint(found / step), halves_away_from_int8_zero(codes, (1, 2)))


def test_strip_gives_keras_own_pools_back(noise):
    float_model = pooled_model(layers.GlobalAveragePooling2D(name="pool"))
    stripped = satkeras.strip(satkeras.quantize_model(float_model, "int8"))
    assert type(stripped.get_layer("pool")) is layers.GlobalAveragePooling2D
    np.testing.assert_allclose(stripped.predict(noise, verbose=0), float_model.predict(noise, verbose=0), rtol=1e-5)
