"""LSQ: the learned step's value and gradients against the paper's equations, where it starts, and that it trains."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from satkeras import learned_variables, quantize_model
from satkeras._compat import weight_variables
from satkeras.quantizers import LSQActivationQuantizer, LSQWeightQuantizer

WEIGHTS = [(LSQWeightQuantizer(k), 2 ** (k - 1), 2 ** (k - 1) - 1) for k in range(2, 9)]
SIGNED = [(LSQActivationQuantizer(k, signed=True), 2 ** (k - 1), 2 ** (k - 1) - 1) for k in range(2, 9)]
UNSIGNED = [(LSQActivationQuantizer(k), 0, 2**k - 1) for k in range(2, 9)]
grids = pytest.mark.parametrize(("quantizer", "q_n", "q_p"), [*WEIGHTS, *SIGNED, *UNSIGNED], ids=str)


@pytest.fixture
def with_step(variables_of):
    """A function for the variables of a quantizer whose step is known."""

    def with_step(quantizer, step):
        variables = variables_of(quantizer)
        variables["step"].assign(step)
        return variables

    return with_step


def gradients_of(quantizer, v, variables, g):
    x = tf.constant(v, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(quantizer(x, True, variables) * tf.constant(g, tf.float32))
    return tape.gradient(total, [x, variables["step"]])


def off_ties_and_edges(ratio, q_n, q_p):
    return ratio[(np.abs(ratio % 1 - 0.5) > 1e-3) & (np.abs(ratio + q_n) > 1e-3) & (np.abs(ratio - q_p) > 1e-3)]


@grids
def test_value_and_gradients(quantizer, q_n, q_p, with_step):
    rng, step = np.random.default_rng(0), 0.37
    ratio = off_ties_and_edges(rng.uniform(-1.4 * q_p - 2, 1.4 * q_p + 2, 2000), q_n, q_p)[:1800].reshape(9, 200)
    g = rng.normal(size=ratio.shape)
    variables = with_step(quantizer, step)
    found = quantizer(tf.constant(ratio * step, tf.float32), False, variables)
    np.testing.assert_allclose(found, step * np.rint(np.clip(ratio, -q_n, q_p)), rtol=1e-6)

    inside = (-q_n < ratio) & (ratio < q_p)
    slope = np.where(inside, np.rint(ratio) - ratio, np.where(ratio <= -q_n, -q_n, q_p))
    count = ratio.size if isinstance(quantizer, LSQWeightQuantizer) else ratio[0].size
    dx, dstep = gradients_of(quantizer, ratio * step, variables, g)
    np.testing.assert_array_equal(dx, np.where(inside, g.astype(np.float32), 0))
    assert float(dstep) == pytest.approx((g * slope).sum() / np.sqrt(count * q_p), rel=1e-4, abs=1e-4)


@grids
def test_edges_are_outside_and_ties_go_to_even(quantizer, q_n, q_p, with_step):
    # All exact in float32. The edges -Q_N and Q_P, their neighbors inside, and ties.
    ratio = np.array([[-q_n, q_p, -q_n + 0.25, q_p - 0.25, 0.5, 1.5, q_p + 7.5, -q_n - 0.5]])
    step = 0.5
    variables = with_step(quantizer, step)
    integers = quantizer(tf.constant(ratio * step, tf.float32), False, variables).numpy() / step
    np.testing.assert_array_equal(integers, [[-q_n, q_p, -q_n, q_p, 0, min(2, q_p), q_p, -q_n]])
    for index, value in enumerate(ratio[0]):
        g = np.zeros_like(ratio)
        g[0, index] = 1
        dx, dstep = gradients_of(quantizer, ratio * step, variables, g)
        inside = -q_n < value < q_p
        np.testing.assert_array_equal(dx, g if inside else 0 * g)
        slope = np.rint(value) - value if inside else -q_n if value <= -q_n else q_p
        assert float(dstep) == pytest.approx(slope / np.sqrt(ratio.size * q_p), rel=1e-6)


@grids
def test_every_level_is_reached(quantizer, q_n, q_p, with_step, integers_on_grid):
    x = np.linspace(-0.2 * q_p - 1, 0.2 * q_p + 1, 20001)
    assert set(integers_on_grid(quantizer, x, with_step(quantizer, 0.1))) == set(range(-q_n, q_p + 1))
    assert quantizer.levels == (-q_n, q_p)


@grids
def test_the_start(quantizer, q_n, q_p, variables_of):
    values = np.random.default_rng(0).normal(0.1, 0.3, (20, 30)).astype(np.float32)
    seen = np.abs(values) if q_n else np.maximum(values, 0)  # behind a ReLU, as in the paper
    expected = 2 * seen.mean() / np.sqrt(q_p)
    calibrated, first_batch = variables_of(quantizer), variables_of(quantizer)
    quantizer.calibrate(values, calibrated)
    assert float(calibrated["step"]) == pytest.approx(expected, rel=1e-5)
    x = tf.constant(values)
    predicted = quantizer(x, False, first_batch)
    assert float(first_batch["step"]) == 0  # prediction learns nothing
    np.testing.assert_array_equal(quantizer(x, True, first_batch), predicted)
    assert float(first_batch["step"]) == float(calibrated["step"])
    quantizer(2 * x, True, first_batch)
    assert float(first_batch["step"]) == float(calibrated["step"])  # only the first batch


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("quantizer", [LSQWeightQuantizer(3), LSQActivationQuantizer(3)])
def test_graphs_start_at_the_first_batch_too(quantizer, jit_compile, variables_of):
    x = tf.constant(np.random.default_rng(0).normal(size=(8, 9)), tf.float32)
    eager, compiled = variables_of(quantizer), variables_of(quantizer)

    def step(variables):
        with tf.GradientTape() as tape:
            y = quantizer(x, True, variables)
        return y, tape.gradient(y, variables["step"])

    found = tf.function(lambda: step(compiled), jit_compile=jit_compile)()
    for one, other in zip(found, step(eager), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(compiled["step"], eager["step"], rtol=1e-6)


@pytest.mark.parametrize("step", [1e-12, -1.0, -1e4])
@pytest.mark.parametrize("quantizer", [LSQWeightQuantizer(4), LSQActivationQuantizer(4)])
def test_a_step_driven_below_zero_comes_back(quantizer, step, with_step, integers_on_grid):
    variables = with_step(quantizer, step)
    x = tf.constant([[0.5, 1.0, 2.0, 0.1]])
    top = quantizer.levels[1]
    np.testing.assert_array_equal(integers_on_grid(quantizer, x, variables), [[top] * 4])
    _, dstep = gradients_of(quantizer, x, variables, np.full((1, 4), -1.0))
    assert float(dstep) == pytest.approx(-4 * top / np.sqrt(4 * top), rel=1e-6)


def test_weights_in_full_precision_stay_as_they_are():
    quantizer = LSQWeightQuantizer(None)
    assert quantizer.declared_variables == ()
    x = tf.constant([[0.3, -2.0]])
    np.testing.assert_array_equal(quantizer(x, True, {}), x)


@pytest.mark.parametrize("quantizer", [LSQWeightQuantizer(4), LSQActivationQuantizer(4)])
def test_any_step_holds_a_tensor_of_zeros(quantizer, variables_of, integers_on_grid):
    variables = variables_of(quantizer)
    quantizer(tf.zeros((2, 3)), True, variables)
    assert float(variables["step"]) == 1
    np.testing.assert_array_equal(integers_on_grid(quantizer, np.zeros((2, 3)), variables), 0)


def test_kernels_steps_start_from_kernels_without_data(residual_model):
    model = quantize_model(residual_model, "lsq", weight_bits=2)
    for name in ("stem", "conv", "depthwise", "head", "logits"):
        kernel, quantizer, variables = weight_variables(model.get_layer(f"quant_{name}"))
        expected = 2 * np.abs(residual_model.get_layer(name).get_weights()[0]).mean() / np.sqrt(quantizer.levels[1])
        assert float(variables["step"]) == pytest.approx(expected, rel=1e-5)


def test_the_step_follows_an_optimizer_to_the_best_grid():
    """Gradient descent on the squared error finds a step no worse than any of a fine search."""
    quantizer, rng = LSQWeightQuantizer(3), np.random.default_rng(0)
    w = rng.normal(size=(20, 50)).astype(np.float32)
    variables = quantizer.build(w.shape, "kernel", tf_keras.layers.Layer())
    quantizer.calibrate(w, variables)

    def error(step):
        return np.square(step * np.rint(np.clip(w / step, -4, 3)) - w).mean()

    optimizer = tf_keras.optimizers.Adam(0.003)
    for _ in range(300):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(quantizer(tf.constant(w), True, variables) - w))
        optimizer.minimize(loss, [variables["step"]], tape)
    assert error(float(variables["step"])) <= 1.02 * min(error(step) for step in np.linspace(0.1, 2, 400))


@pytest.mark.thinned(3)
@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_training_is_stable(bits, calibrated):
    """A network that tells apart whether the upper or the lower half of an image is brighter."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 256)
    images = rng.integers(0, 200, (256, 6, 6, 1)).astype(np.float32)
    images[labels == 1, :3] += 55
    images[labels == 0, 3:] += 55
    stack = [layers.InputLayer((6, 6, 1), name="image")]
    for name in ("one", "two"):
        stack += [layers.Conv2D(8, 3, padding="same", use_bias=False, name=name)]
        stack += [layers.BatchNormalization(momentum=0.8, name=f"{name}_bn"), layers.ReLU(name=f"{name}_relu")]
    model = tf_keras.Sequential([*stack, layers.Flatten(name="flat"), layers.Dense(2, name="logits")])
    q = quantize_model(
        model, "lsq", weight_bits=bits, activation_bits=bits, calibration_data=images[:64] if calibrated else None
    )
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    q.compile(tf_keras.optimizers.SGD(0.02, momentum=0.9), loss, metrics=["accuracy"])
    history = q.fit(images, labels, batch_size=32, epochs=15, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert history["accuracy"][-1] > 0.9
    assert q.evaluate(images, labels, verbose=0)[1] > 0.9
    steps = learned_variables(q, "step")
    assert len(steps) == 5
    assert min(float(step) for step in steps) > 0
