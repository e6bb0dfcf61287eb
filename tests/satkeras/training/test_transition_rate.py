"""The optimizer that keeps to a share of integers that change in a step."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import satkeras
from satkeras import SCHEMES, TransitionRateSGD, integer_weights
from satkeras._compat import weight_variables
from satkeras.models.insertion import has_quantizer
from satkeras.models.wrapper import quantization_of


def kernels_of(model):
    """The latent weights of fewer than 8 bits, by name."""
    found = {}
    for variable in model.trainable_variables:
        quantization = quantization_of(variable)
        if quantization is not None and quantization[0].width < 8:
            found[variable.name] = variable
    return found


def integers(variable):
    quantizer, variables = quantization_of(variable)
    return quantizer.integers(variable, variables).numpy()


def gradients(model, images, training=True):
    x, y = images
    with tf.GradientTape() as tape:
        loss = tf_keras.losses.SparseCategoricalCrossentropy()(y, model(x, training=training))
    return tape.gradient(loss, model.trainable_variables)


def step(model, optimizer, images):
    optimizer.apply_gradients(zip(gradients(model, images), model.trainable_variables, strict=True))


@pytest.mark.thinned(3)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", [2, 4])
def test_a_quantizers_integers_are_those_of_the_report(scheme, bits, quantized):
    model = quantized(scheme, weight_bits=bits)
    expected = integer_weights(model)
    for layer in filter(has_quantizer, model.layers):
        if weight_variables(layer) is not None:
            latent = weight_variables(layer)[0]
            quantizer, variables = quantization_of(latent)
            np.testing.assert_array_equal(quantizer.integers(latent, variables), expected[layer.name].integers)


@pytest.mark.parametrize("nesterov", [False, True])
def test_it_does_what_the_paper_says(nesterov, quantized, images):
    model = quantized("sat", weight_bits=4)
    optimizer = TransitionRateSGD(
        0.05,
        tf_keras.optimizers.schedules.PolynomialDecay(0.3, 10, 0.0),
        kernel_learning_rate=0.5,
        adaptation=2.0,
        smoothing=0.75,
        momentum=0.5,
        nesterov=nesterov,
        weight_decay=0.01,
    )
    optimizer.exclude_from_weight_decay(var_list=satkeras.undecayed_variables(model))
    kernels = kernels_of(model)
    assert len(kernels) == 3  # the first and last layer have 8 bits
    count = sum(variable.numpy().size for variable in kernels.values())
    undecayed = {variable.ref() for variable in satkeras.undecayed_variables(model)}
    U, K, k = 0.5, 0.0, 0.0
    moments = dict.fromkeys(kernels, 0.0)
    for number in range(3):
        found = dict(zip((v.name for v in model.trainable_variables), gradients(model, images), strict=True))
        K = 0.75 * K + 0.25 * k
        U = max(0.0, U + 2.0 * (0.3 * (1 - number / 10) - K))
        expected = {}
        for name, variable in kernels.items():
            gradient = found[name].numpy()
            moments[name] = gradient + 0.5 * moments[name]
            direction = gradient + 0.5 * moments[name] if nesterov else moments[name]
            decay = 0.0 if variable.ref() in undecayed else 0.01
            expected[name] = variable.numpy() - U * (direction + decay * variable.numpy())
        before = {name: integers(variable) for name, variable in kernels.items()}
        optimizer.apply_gradients((found[variable.name], variable) for variable in model.trainable_variables)
        for name, variable in kernels.items():
            np.testing.assert_allclose(variable.numpy(), expected[name], rtol=1e-4, atol=1e-5)
        k = sum((before[name] != integers(variable)).sum() for name, variable in kernels.items()) / count
        assert k > 0
        np.testing.assert_allclose(optimizer.kernel_learning_rate, U, rtol=1e-5)
        np.testing.assert_allclose(optimizer.transition_rate, K, rtol=1e-5)


def test_all_else_trains_as_with_keras_own(quantized, images):
    options = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "clipnorm": 1.0}
    one, other = quantized(), quantized()
    mine, keras_own = TransitionRateSGD(0.05, 0.01, **options), tf_keras.optimizers.SGD(0.05, **options)
    for _ in range(2):
        values = gradients(one, images)
        mine.apply_gradients(zip(values, one.trainable_variables, strict=True))
        keras_own.apply_gradients(zip(values, other.trainable_variables, strict=True))
    steered = kernels_of(one)
    for a, b in zip(one.trainable_variables, other.trainable_variables, strict=True):
        assert np.array_equal(a, b) == (a.name not in steered), a.name


@pytest.mark.parametrize(("scheme", "held"), [("lsq", {"step"}), ("qn", {"alpha", "beta"}), ("sat", set())])
def test_what_the_quantizers_of_the_kernels_learn_stays(scheme, held, residual_model, images):
    model = satkeras.quantize_model(residual_model, scheme, calibration_data=images[0])
    if scheme == "qn":
        satkeras.set_thresholds(model, images[0])
    of_kernels = {
        variable.ref(): name
        for kernel in kernels_of(model).values()
        for name, variable in quantization_of(kernel)[1].items()
    }
    before = [variable.numpy() for variable in model.trainable_variables]
    optimizer = TransitionRateSGD(0.01, 0.01)
    step(model, optimizer, images)
    same = {
        of_kernels[variable.ref()]
        for value, variable in zip(before, model.trainable_variables, strict=True)
        if variable.ref() in of_kernels and np.array_equal(value, variable)
    }
    assert same == held
    clips = [(v, b) for v, b in zip(model.trainable_variables, before, strict=True) if "output" in v.name]
    assert any(not np.array_equal(variable, value) for variable, value in clips)


@pytest.mark.slow
def test_the_share_of_integers_that_change_follows_the_target(residual_model, images):
    model = satkeras.quantize_model(residual_model, "sat", calibration_data=images[0])
    optimizer = TransitionRateSGD(1e-3, 0.02, kernel_learning_rate=1e-3, adaptation=0.02, smoothing=0.9)
    x, y = tf.constant(images[0]), tf.constant(images[1])
    optimizer.build(model.trainable_variables)
    kernels = kernels_of(model)
    count = sum(variable.numpy().size for variable in kernels.values())

    @tf.function(jit_compile=True)
    def train(target):
        optimizer.target_rate = lambda _: target
        total = tf.constant(0.0)
        for _ in tf.range(400):
            before = [quantization_of(v)[0].integers(v, quantization_of(v)[1]) for v in kernels.values()]
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf_keras.losses.sparse_categorical_crossentropy(y, model(x, training=True)))
            optimizer.apply_gradients(
                zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
            )
            for value, variable in zip(before, kernels.values(), strict=True):
                quantizer, variables = quantization_of(variable)
                total += tf.reduce_sum(
                    tf.cast(tf.not_equal(value, quantizer.integers(variable, variables)), tf.float32)
                )
        return total / (400.0 * count)

    train(tf.constant(0.02))
    assert 0.014 < float(train(tf.constant(0.02))) < 0.026
    train(tf.constant(0.005))
    assert 0.003 < float(train(tf.constant(0.005))) < 0.008
    train(tf.constant(0.0))
    assert float(train(tf.constant(0.0))) < 0.001


@pytest.mark.slow
def test_a_compiled_loop_trains_as_single_steps(residual_model, images):
    schedule = tf_keras.optimizers.schedules.CosineDecay(0.05, 10)
    one, other = (satkeras.quantize_model(residual_model, "sat", calibration_data=images[0]) for _ in range(2))
    mine, compiled = (TransitionRateSGD(1e-3, schedule, kernel_learning_rate=0.01) for _ in range(2))
    compiled.build(other.trainable_variables)

    @tf.function(jit_compile=True)
    def epoch():
        for _ in tf.range(4):
            step(other, compiled, images)

    for _ in range(4):
        step(one, mine, images)
    epoch()
    assert float(mine.transition_rate) > 0
    np.testing.assert_allclose(mine.kernel_learning_rate, compiled.kernel_learning_rate, rtol=1e-3)
    for a, b in zip(one.trainable_variables, other.trainable_variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3)


def test_a_saved_run_goes_on_where_it_stopped(quantized, images, tmp_path):
    def compiled(model):
        optimizer = TransitionRateSGD(
            tf_keras.optimizers.schedules.CosineDecay(0.0, 10, warmup_target=0.01, warmup_steps=3),
            tf_keras.optimizers.schedules.CosineDecay(0.1, 10),
            kernel_learning_rate=0.1,
        )
        model.compile(optimizer, "sparse_categorical_crossentropy")
        return model

    def fit(model, epochs):
        model.fit(*images, batch_size=8, epochs=epochs, shuffle=False, verbose=0)

    whole, broken = compiled(quantized()), compiled(quantized())
    fit(whole, 2)
    fit(broken, 1)
    satkeras.save_model(broken, tmp_path / "model.keras")
    resumed = satkeras.load_model(tmp_path / "model.keras")
    assert isinstance(resumed.optimizer, TransitionRateSGD)
    assert float(resumed.optimizer.kernel_learning_rate) == float(broken.optimizer.kernel_learning_rate) != 0.1
    fit(resumed, 1)
    assert float(resumed.optimizer.transition_rate) == float(whole.optimizer.transition_rate) > 0
    for a, b in zip(resumed.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.name)


def test_a_frozen_kernel_is_left_alone(quantized, images):
    model = quantized()
    model.get_layer("quant_conv").trainable = False
    before = model.get_layer("quant_conv").get_weights()
    optimizer = TransitionRateSGD(0.05, 0.01)
    step(model, optimizer, images)
    for value, now in zip(before, model.get_layer("quant_conv").get_weights(), strict=True):
        np.testing.assert_array_equal(value, now)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_learning_rate": 0.0},
        {"kernel_learning_rate": np.nan},
        {"adaptation": -1.0},
        {"smoothing": 1.0},
        {"target_rate": 1.5},
        {"target_rate": -0.1},
        {"learning_rate": 0.0},
    ],
    ids=str,
)
def test_what_is_out_of_range_is_refused(options):
    with pytest.raises(ValueError, match="Received: [a-z_]+=") as refused:
        TransitionRateSGD(**options)
    assert next(iter(options)) in str(refused.value)


def test_a_model_without_such_kernels_is_refused(residual_model, quantized, images):
    for model in (residual_model, quantized("sat", weight_bits=8), quantized("sat", weight_bits=None)):
        with pytest.raises(ValueError, match="fewer than 8 bits"):
            step(model, TransitionRateSGD(0.05, 0.01), images)
