"""Thresholds from images, the phases and the snapping of thresholds, in whole models."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from satkeras import load_model, quantize_model, save_model
from satkeras.quantizers import MaxWeightQuantizer, MovingRangeQuantizer, QuantizationNetworksActivationQuantizer
from satkeras.training.callbacks import GeometricTemperature, TemperaturePerEpoch, TemperaturePerStep
from satkeras.training.phases import freeze, set_phase, set_thresholds, staircases


def small_model():
    stack = []
    for name in ("first", "a", "b"):
        stack += [layers.Conv2D(4, 3, padding="same", use_bias=False, name=name)]
        stack += [layers.BatchNormalization(momentum=0.5, name=f"{name}_bn"), layers.ReLU(name=f"{name}_relu")]
    head = [layers.MaxPooling2D(name="pool"), layers.Flatten(name="flat"), layers.Dense(5, name="logits")]
    model = tf_keras.Sequential([layers.InputLayer((8, 8, 3), name="image"), *stack, *head])
    model.get_layer("logits").activation = tf_keras.activations.softmax
    return model


@pytest.fixture(scope="module")
def first_model():
    tf_keras.utils.set_random_seed(0)
    return quantize_model(small_model(), "qn", weight_bits="ternary", activation_bits=2)


@pytest.fixture
def fresh_model(first_model):
    """Ternary weights, 2-bit activations, without thresholds."""
    copy = tf_keras.models.clone_model(first_model)
    copy.set_weights(first_model.get_weights())
    return copy


@pytest.fixture
def model(fresh_model, images):
    """Ternary weights, 2-bit activations, with thresholds."""
    set_thresholds(fresh_model, images[0])
    return fresh_model


@pytest.fixture
def activations():
    """A function for the activations' staircases by layer name."""

    def activations(model):
        return {staircase.wrapper.name: staircase for staircase in staircases(model) if staircase.is_activation}

    return activations


def fit(model, images, *callbacks, epochs=1, eagerly=True):
    model.compile(tf_keras.optimizers.SGD(0.01, 0.9), "sparse_categorical_crossentropy", run_eagerly=eagerly)
    model.fit(*images, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks))


def temperatures(model):
    return {float(staircase.variables["temperature"]) for staircase in staircases(model)}


def test_a_quantized_activation_branches_off_an_8_bit_tensor(model, quantizers_of):
    found = quantizers_of(model)
    assert found["quant_first_relu_output"] == found["quant_a_relu_output"] == MovingRangeQuantizer(8)
    assert found["quant_a_input"] == found["quant_b_input"] == QuantizationNetworksActivationQuantizer(2)
    # The first and last layers have 8 bits.
    assert "quant_logits_input" not in found
    assert found["quant_first"] == found["quant_logits"] == MaxWeightQuantizer(8)


def test_overrides_come_back_from_8_bits(quantizers_of):
    found = quantizers_of(
        quantize_model(small_model(), "qn", activation_bits=8, overrides={"*": {"weight_bits": "3bit+-4"}})
    )
    assert {found[f"quant_{name}"].num_bits for name in ("first", "a", "b", "logits")} == {"3bit+-4"}
    assert not [name for name in found if name.endswith("_input")]


def test_weights_are_initialized_by_quantize_model(model):
    for name in ("a", "b"):
        (staircase,) = (one for one in staircases(model) if one.wrapper.name == f"quant_{name}")
        latent = staircase.wrapper._weight_vars[0][0].numpy()
        assert float(staircase.variables["beta"]) == pytest.approx(1.25 / np.abs(latent).max(), rel=1e-6)


def test_thresholds_come_from_the_tensors_without_quantized_activations(model, images, activations):
    set_phase(model, "weights")
    tensor = tf_keras.Model(model.inputs, model.get_layer("quant_a_relu_output").output)(images[0]).numpy()
    beta = float(activations(model)["quant_b_input"].variables["beta"])
    assert beta == pytest.approx(5 / 4 * 3 / tensor.max(), rel=1e-5)


def test_a_model_without_thresholds_says_so(fresh_model, images):
    model = fresh_model
    with pytest.raises(tf.errors.InvalidArgumentError, match="call satkeras.set_thresholds"):
        fit(model, images, eagerly=False)
    for verb in (lambda: set_phase(model, "both"), lambda: freeze(model)):
        with pytest.raises(ValueError, match=r"set_thresholds\(model, images\) first. Without.*\['quant_a_input'"):
            verb()
    set_phase(model, "weights")
    fit(model, images)


def test_one_step_moves_every_trainable_variable(model, images):
    # Values far from every threshold have no gradient: thresholds must suit the batch norms.
    set_phase(model, "weights")
    fit(model, images)
    set_thresholds(model, images[0])
    set_phase(model, "both")
    before = [variable.numpy() for variable in model.trainable_variables]
    fit(model, images, eagerly=False)
    still = [
        variable.name
        for variable, value in zip(model.trainable_variables, before, strict=True)
        if np.array_equal(variable.numpy(), value)
    ]
    assert still == []


def test_phase_weights_leaves_activations_at_8_bits(model, images, activations):
    set_phase(model, "weights")
    before = {name: one.variables["alpha"].numpy() for name, one in activations(model).items()}
    fit(model, images)
    for name, staircase in activations(model).items():
        assert float(staircase.variables["alpha"]) == before[name]
        x = tf.random.uniform((2, 8, 8, 4))
        np.testing.assert_array_equal(staircase.wrapper(x, training=False), x)


def test_phase_activations_keeps_the_levels_of_the_weights(model, images):
    set_phase(model, "activations")
    weights = [staircase for staircase in staircases(model) if not staircase.is_activation]
    before = [[value.numpy() for value in staircase.variables.values()] for staircase in weights]
    latent = [staircase.wrapper._weight_vars[0][0].numpy() for staircase in weights]
    others = {variable.name: variable.numpy() for variable in model.trainable_variables}
    fit(model, images, TemperaturePerEpoch())
    for staircase, values, kernel in zip(weights, before, latent, strict=True):
        np.testing.assert_array_equal(staircase.wrapper._weight_vars[0][0], kernel)
        for variable, value in zip(staircase.variables.values(), values, strict=True):
            np.testing.assert_array_equal(variable, value)
    moved = {variable.name for variable in model.trainable_variables if np.any(variable != others[variable.name])}
    assert any("a_input" in name for name in moved)
    assert any("bn/gamma" in name for name in moved)


def test_the_temperature_rises_where_something_trains(model, images):
    set_phase(model, "weights")
    fit(model, images, TemperaturePerEpoch(5), epochs=3, eagerly=False)
    assert temperatures(model) == {15.0, 0.0}
    set_phase(model, "activations")
    fit(model, images, TemperaturePerStep(2.5), epochs=2)
    assert temperatures(model) == {15.0, 10.0}
    set_phase(model, "both")
    fit(model, images, TemperaturePerEpoch(20, highest=32), epochs=1)
    assert temperatures(model) == {32.0, 30.0}


@pytest.mark.thinned(2)
@pytest.mark.parametrize("steps", [1, 3, 4, 8])
def test_the_temperature_counts_training_steps_however_many_run_at_once(steps, model, images):
    model.compile("sgd", "sparse_categorical_crossentropy", steps_per_execution=steps)
    model.fit(*images, batch_size=2, verbose=0, callbacks=[TemperaturePerStep(5.0)])
    assert {float(one.variables["temperature"]) for one in staircases(model)} == {5.0 * 8}


def test_a_geometric_temperature_rises_by_a_factor(model, images):
    set_phase(model, "weights")
    seen = []
    note = tf_keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(max(temperatures(model)))
    )
    fit(model, images, GeometricTemperature(2, lowest=3, highest=300), note, epochs=2)
    assert seen == [3, 30, 300, 300]
    fit(model, images, GeometricTemperature(2, lowest=3, highest=300), epochs=1)
    assert temperatures(model) == {300.0, 0.0}


def test_a_resumed_run_goes_on_at_its_temperature(model, images, tmp_path):
    fit(model, images, TemperaturePerEpoch(5), epochs=2)
    model.save_weights(tmp_path / "weights.h5")
    resumed = tf_keras.models.clone_model(model)
    resumed.load_weights(tmp_path / "weights.h5")
    np.testing.assert_array_equal(resumed(images[0]), model(images[0]))
    fit(resumed, images, TemperaturePerEpoch(5), epochs=1)
    assert temperatures(resumed) == {15.0}


def test_freeze_moves_thresholds_and_no_prediction(model, images, activations):
    fit(model, images, TemperaturePerEpoch(50), epochs=2)
    staircase = activations(model)["quant_b_input"]
    # A few steps on noise drive it anywhere, below zero too.
    staircase.variables["beta"].assign(0.7)
    # A threshold on a code itself, and one beyond them all.
    step = float(model.get_layer("quant_a_relu_output")._output_quantizer_vars["range"]) / 255
    staircase.quantizer.move_thresholds(np.array([0.0, 100 * step, 1e6 * step]), staircase.variables)
    x = tf.constant(step) * tf.range(256, dtype=tf.float32)[None, :, None, None] * tf.ones((1, 1, 1, 4))
    before, predictions = staircase.wrapper(x, training=False), model.predict(images[0], verbose=0)
    freeze(model)
    np.testing.assert_array_equal(staircase.wrapper(x, training=False), before)
    np.testing.assert_array_equal(model.predict(images[0], verbose=0), predictions)
    codes = staircase.variables["thresholds"] / staircase.variables["beta"] / step
    np.testing.assert_allclose(codes, [-0.5, np.floor(codes[1]) + 0.5, 255.5], atol=1e-3)
    assert round(float(codes[1]) + 0.5) in (100, 101)


def test_models_and_arguments_that_are_refused(model, images):
    with pytest.raises(ValueError, match=r"phase must be one of \['activations', 'both', 'weights'\].*phase='all'"):
        set_phase(model, "all")
    other = quantize_model(small_model(), "sat")
    for verb in (lambda: set_phase(other, "both"), lambda: set_thresholds(other, images[0]), lambda: freeze(other)):
        with pytest.raises(ValueError, match="quantized with scheme='qn' is required. Received: 'sequential"):
            verb()
    with pytest.raises(ValueError, match="^data must hold at least one example"):
        set_thresholds(model, images[0][:0])
    with pytest.raises(ValueError, match="scheme='qn' is required"):
        fit(other, images, TemperaturePerEpoch())
    for arguments in ({"increase": 0}, {"highest": -1.0}):
        with pytest.raises(ValueError, match="must be positive. Received:"):
            TemperaturePerStep(**arguments)
    for arguments in (
        {"training_steps": 0},
        {"training_steps": 9, "lowest": -1.0},
        {"training_steps": 9, "highest": np.inf},
    ):
        with pytest.raises(ValueError, match="must be positive. Received:"):
            GeometricTemperature(**arguments)
    with pytest.raises(ValueError, match="highest must not be below lowest. Received: lowest=5.0, highest=2"):
        GeometricTemperature(9, highest=2)


def test_a_phase_frees_only_what_a_phase_froze(model):
    model.get_layer("quant_a").trainable = False
    for phase, expected in (("activations", False), ("both", True), ("activations", False), ("weights", True)):
        set_phase(model, phase)
        assert model.get_layer("quant_b").trainable is expected
        assert not model.get_layer("quant_a").trainable


def test_what_a_phase_froze_is_saved(model, tmp_path):
    model.get_layer("quant_a").trainable = False
    set_phase(model, "activations")
    save_model(model, tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    set_phase(loaded, "both")
    assert [loaded.get_layer(f"quant_{name}").trainable for name in ("a", "b")] == [False, True]
