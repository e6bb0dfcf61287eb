"""Optimizers that freeze weights whose integers go back and forth."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

import satkeras
from satkeras import FreezesOscillations, FreezingSGD
from satkeras._compat import serializable
from satkeras.models.wrapper import quantization_of
from satkeras.quantizers import DoReFaWeightQuantizer

CENTRED = dataclasses.replace(satkeras.SCHEMES["sat"], weights=DoReFaWeightQuantizer(grid="centred"))
SYMMETRIC = dataclasses.replace(satkeras.SCHEMES["sat"], weights=DoReFaWeightQuantizer(grid="symmetric"))


def name_of(scheme):
    return scheme if isinstance(scheme, str) else scheme.weights.grid


UNIFORM = [*sorted(set(satkeras.SCHEMES) - {"qn"}), CENTRED, SYMMETRIC]


@serializable
class FreezingAdam(FreezesOscillations, tf_keras.optimizers.Adam):
    pass


def kernels_of(model):
    found = [(variable, quantization_of(variable)) for variable in model.trainable_variables]
    return [(variable, *found) for variable, found in found if found is not None and found[0].width < 8]


@pytest.fixture
def model():
    """A model of dense layers, the one in the middle of 4 bits."""

    def model(scheme):
        inputs = tf_keras.Input((6,))
        x = layers.Dense(8, activation="relu", name="first")(inputs)
        x = layers.Dense(8, activation="relu", name="middle")(x)
        model = tf_keras.Model(inputs, layers.Dense(2, name="last")(x))
        q = satkeras.quantize_model(model, scheme, weight_bits=4, input_range=(-4, 4))
        q(tf.ones((1, 6)), training=True)
        return q

    return model


def step(model, optimizer, gradient):
    """One step with a gradient for the kernels of few bits, zero for all else."""
    low = {kernel.ref() for kernel, *_ in kernels_of(model)}
    optimizer.apply_gradients(
        (gradient if variable.ref() in low else tf.zeros_like(variable), variable)
        for variable in model.trainable_variables
    )


@pytest.mark.thinned(3)
@pytest.mark.parametrize("scheme", UNIFORM, ids=name_of)
@pytest.mark.parametrize("bits", [2, 4])
def test_a_latent_weight_for_an_integer_rounds_to_it(scheme, bits, quantized):
    for kernel, quantizer, variables in kernels_of(quantized(scheme, weight_bits=bits)):
        integers = quantizer.integers(kernel, variables)
        latent = quantizer.latent_at(integers, kernel, variables)
        np.testing.assert_array_equal(quantizer.integers(latent, variables), integers)
        np.testing.assert_array_equal(quantizer.nearest_levels(integers), integers)
        # In the middle: a third of a step to either side changes nothing but at the ends.
        ends = [float(level) for level in quantizer.levels]
        inside = (integers > ends[0]) & (integers < ends[1])
        for side in (-0.3, 0.3):
            moved = quantizer.latent_at(integers + side * quantizer.spacing, kernel, variables)
            moved = tf.where(inside, moved, latent)
            np.testing.assert_array_equal(quantizer.integers(moved, variables), integers)


@pytest.mark.parametrize("scheme", ["lsq", "sat"])
def test_it_does_what_the_paper_says(scheme, model):
    model = model(scheme)
    ((kernel, quantizer, variables),) = kernels_of(model)
    decay, threshold, rng = 0.2, 0.3, np.random.default_rng(0)
    optimizer = FreezingSGD(1.0, threshold=threshold, decay=decay)
    last = quantizer.integers(kernel, variables).numpy()
    direction, frequency, mean = np.zeros_like(last), np.zeros_like(last), last.copy()
    frozen = np.zeros(last.shape, bool)
    size = float(np.std(kernel))
    for number in range(9):
        push = (-1) ** number * 0.5 * size * rng.uniform(0, 1, last.shape).astype(np.float32)
        moved = tf.Variable(tf.where(frozen, kernel, kernel - push))
        now = quantizer.integers(moved, variables).numpy()
        step(model, optimizer, push)
        change = np.sign(now - last)
        frequency = decay * (change * direction == -1) + (1 - decay) * frequency
        newly = ~frozen & (frequency > threshold)
        spacing, (lowest, highest) = quantizer.spacing, quantizer.levels
        nearest = np.clip(lowest + np.rint((mean - lowest) / spacing) * spacing, lowest, highest)
        chosen = np.where(newly & (now > lowest) & (now < highest), nearest, now)
        settled = np.where(frozen, last, chosen)
        mean = decay * now + (1 - decay) * mean
        direction = np.where(change == 0, direction, change)
        frozen |= newly
        last = settled
        np.testing.assert_array_equal(optimizer.frozen[0], frozen)
        np.testing.assert_array_equal(quantizer.integers(kernel, variables), settled)
    assert 0.1 < optimizer.frozen_share() < 1
    assert optimizer.frozen_share() == pytest.approx(frozen.mean())


@pytest.mark.thinned(3)
@pytest.mark.parametrize("scheme", UNIFORM, ids=name_of)
def test_frozen_integers_stay(scheme, model):
    model, rng = model(scheme), np.random.default_rng(0)
    ((kernel, quantizer, variables),) = kernels_of(model)
    optimizer = FreezingSGD(0.3, momentum=0.5, weight_decay=0.01, threshold=0.05, decay=0.1)
    size = float(np.std(kernel))
    kept = {}
    for _ in range(40):
        step(model, optimizer, (size * rng.normal(size=kernel.shape)).astype(np.float32))
        now = quantizer.integers(kernel, variables).numpy()
        for place, integer in kept.items():
            assert now[place] == integer
        kept |= {place: now[place] for place in zip(*np.nonzero(optimizer.frozen[0].numpy()), strict=True)}
    assert len(kept) > 5


def test_a_threshold_above_all_frequencies_freezes_nothing(model):
    one, rng = model("sat"), np.random.default_rng(0)
    other = tf_keras.models.clone_model(one)
    other.set_weights(one.get_weights())
    freezing, plain = FreezingSGD(0.1, momentum=0.9, threshold=1.0), tf_keras.optimizers.SGD(0.1, momentum=0.9)
    for _ in range(3):
        push = rng.normal(size=(8, 8)).astype(np.float32)
        step(one, freezing, push)
        step(other, plain, push)
    assert freezing.frozen_share() == 0
    for a, b in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("cls", [FreezingSGD, FreezingAdam])
def test_a_saved_run_goes_on_where_it_stopped(cls, model, tmp_path):
    x = np.random.default_rng(0).uniform(-4, 4, (64, 6)).astype(np.float32)
    y = np.random.default_rng(1).normal(size=(64, 2)).astype(np.float32)
    threshold = tf_keras.optimizers.schedules.CosineDecay(0.05, 20, alpha=0.1)

    def fit(model):
        model.fit(x, y, batch_size=8, epochs=1, shuffle=False, verbose=0)

    whole = model("sat")
    broken = tf_keras.models.clone_model(whole)
    broken.set_weights(whole.get_weights())
    for one in (whole, broken):
        one.compile(cls(0.05, threshold=threshold, decay=0.03), "mse")
        fit(one)
    fit(whole)
    satkeras.save_model(broken, tmp_path / "model.keras")
    resumed = satkeras.load_model(tmp_path / "model.keras")
    assert isinstance(resumed.optimizer, cls)
    fit(resumed)
    assert whole.optimizer.frozen_share() == resumed.optimizer.frozen_share() > 0
    for a, b in zip(resumed.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.name)


def test_it_works_in_a_compiled_loop_and_with_transition_rates(model):
    @serializable
    class Both(FreezesOscillations, satkeras.TransitionRateSGD):
        pass

    model = model("sat")
    optimizer = Both(0.01, 0.1, kernel_learning_rate=0.05, threshold=0.02)
    optimizer.build(model.trainable_variables)
    x = tf.random.normal((8, 6), seed=0)

    @tf.function(jit_compile=True)
    def train():
        for _ in tf.range(50):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(model(x, training=True) - 1.0))
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    train()
    assert int(optimizer.iterations) == 50
    assert 0 <= optimizer.frozen_share() <= 1
    assert float(optimizer.transition_rate) > 0


def test_what_is_out_of_range_is_refused(residual_model, quantized):
    for options in ({"threshold": 0.0}, {"threshold": 1.5}, {"decay": 0.0}, {"decay": 2.0}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} must be within"):
            FreezingSGD(0.1, **options)
    for model in (residual_model, quantized("sat", weight_bits=8)):
        with pytest.raises(ValueError, match="fewer than 8 bits"):
            FreezingSGD(0.1).build(model.trainable_variables)
    with pytest.raises(ValueError, match="levels are learned"):
        FreezingSGD(0.1).build(quantized("qn").trainable_variables)
