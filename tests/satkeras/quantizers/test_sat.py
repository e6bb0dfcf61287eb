"""SAT's rescaled weights: which variance, which number of outputs, and what the gradient leaves out."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from satkeras import SCHEMES, quantize_model
from satkeras._compat import weight_variables
from satkeras.quantizers import DoReFaWeightQuantizer, SATWeightQuantizer

CASES = [
    (num_bits, grid)
    for num_bits in range(2, 9)
    for grid in ("odd", "centred", "symmetric")
    if num_bits < 8 or grid == "symmetric"
]
# n_out: output units; for a convolution, times the kernel's area (SAT's code: out_channels * kh * kw).
KERNELS = {
    "dense": ((30, 7), False, 7),
    "conv": ((3, 2, 5, 4), False, 3 * 2 * 4),
    "pointwise": ((1, 1, 6, 11), False, 11),
    "depthwise": ((3, 3, 6, 1), True, 3 * 3 * 6),
}
kernels = pytest.mark.parametrize(("shape", "depthwise", "n_out"), KERNELS.values(), ids=KERNELS.keys())


def random_kernel(shape):
    return np.random.default_rng(3).normal(0.02, 0.1, shape).astype(np.float32)


def unrescaled(num_bits, grid, latent):
    """DoReFa's weight, whose own tests compare it with the paper."""
    return DoReFaWeightQuantizer(num_bits, grid)(tf.constant(latent), True, {}).numpy()


@kernels
@pytest.mark.parametrize(("num_bits", "grid"), [*CASES, (None, None)])
def test_constant_rescale(num_bits, grid, shape, depthwise, n_out):
    latent = random_kernel(shape)
    q = unrescaled(num_bits, grid, latent)
    expected = q / np.sqrt(n_out * q.astype(np.float64).var(ddof=1))
    for averaged in (None, 49):
        quantizer = SATWeightQuantizer(num_bits, grid, "constant", depthwise, averaged=averaged)
        found = quantizer(tf.constant(latent), True, {}).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    # Without a pool before a last layer there is Rule II alone.
    np.testing.assert_array_equal(
        found, SATWeightQuantizer(num_bits, grid, depthwise=depthwise)(tf.constant(latent), True, {})
    )
    assert found.astype(np.float64).std(ddof=1) == pytest.approx(n_out**-0.5, rel=1e-5)


@pytest.mark.parametrize("num_bits", [None, 2, 4, 8])
@pytest.mark.parametrize(("shape", "averaged"), [((1280, 100), 16), ((64, 10), 1), ((3, 3, 8, 2), 4), ((1280, 1), 49)])
def test_the_last_layer_keeps_rule_one(num_bits, shape, averaged):
    """VAR[W] is at most a tenth of k_pool^2 / n_in, n_in being all that a unit reads."""
    n_in = np.prod(shape[:-1])
    quantizer = SATWeightQuantizer(num_bits, averaged=averaged)
    found = quantizer(tf.constant(random_kernel(shape)), True, {}).numpy()
    assert found.astype(np.float64).var(ddof=1) == pytest.approx(0.1 * averaged / n_in, rel=1e-5)
    printed = SATWeightQuantizer(num_bits, rescale="constant", averaged=averaged)(
        tf.constant(random_kernel(shape)), True, {}
    )
    assert printed.numpy().var(ddof=1) > 2 * 0.1 * averaged / n_in, "the formula alone must break it here"


@pytest.mark.parametrize(("features", "pool"), [(1024, 7), (1280, 7), (2048, 7), (512, 7)])
def test_on_imagenet_the_rules_are_the_papers_formula(features, pool):
    """MobileNetV1, V2, ResNet-50 and ResNet-18: 1,000 classes behind a 7x7 pool."""
    latent = tf.constant(random_kernel((features, 1000)))
    ours, printed = (SATWeightQuantizer(4, rescale=rescale, averaged=pool**2) for rescale in ("rules", "constant"))
    np.testing.assert_array_equal(ours(latent, True, {}), printed(latent, True, {}))


@pytest.mark.parametrize("keep_scale", [True, False])
def test_whose_scale_a_calibrated_layer_has(keep_scale):
    pretrained = random_kernel((640, 10))
    layer = tf_keras.Sequential([tf_keras.layers.Input((640,)), tf_keras.layers.Dense(10, name="logits")])
    layer.layers[0].kernel.assign(pretrained)
    scheme = dataclasses.replace(SCHEMES["sat"], lone_weights=SATWeightQuantizer(keep_scale=keep_scale))
    images = np.random.default_rng(0).uniform(0, 255, (20, 640)).astype(np.float32)
    wrapper = quantize_model(layer, scheme, calibration_data=images).get_layer("quant_logits")
    latent, quantizer, variables = weight_variables(wrapper)
    assert quantizer.averaged == 1
    found = quantizer(latent, False, variables).numpy().std()
    assert found == pytest.approx(pretrained.std() if keep_scale else (0.1 / 640) ** 0.5, rel=0.05)


def test_variance_is_the_quantized_weights_not_the_clamped_ones():
    latent = random_kernel((40, 10))
    clamped = np.tanh(latent) / np.abs(np.tanh(latent)).max()
    found = SATWeightQuantizer(2)(tf.constant(latent), True, {}).numpy()
    assert found.std(ddof=1) == pytest.approx(10**-0.5, rel=1e-5)
    wrong = unrescaled(2, "odd", latent) / np.sqrt(10 * clamped.var(ddof=1))
    assert wrong.std(ddof=1) != pytest.approx(10**-0.5, rel=0.1), "the two variances must differ for this test to tell"


@kernels
@pytest.mark.parametrize("num_bits", [None, 2, 4, 8])
def test_stddev_rescale_keeps_the_latent_standard_deviation(num_bits, shape, depthwise, n_out):
    latent = random_kernel(shape)
    quantizer = SATWeightQuantizer(num_bits, rescale="stddev", depthwise=depthwise)
    found = quantizer(tf.constant(latent), True, {}).numpy()
    assert found.std(ddof=1) == pytest.approx(latent.std(ddof=1), rel=1e-5)
    q = unrescaled(num_bits, None, latent)
    np.testing.assert_allclose(found, q * (found.ravel()[0] / q.ravel()[0]), rtol=1e-5)


@pytest.mark.parametrize("rescale", ["constant", "stddev"])
@pytest.mark.parametrize(("num_bits", "grid"), [*CASES, (None, None)])
def test_gradient_is_dorefas_times_the_scale(num_bits, grid, rescale, value_and_gradients):
    latent = random_kernel((6, 5))
    incoming = np.random.default_rng(1).normal(size=(6, 5))
    quantizer = SATWeightQuantizer(num_bits, grid, rescale=rescale)
    found, gradient = value_and_gradients(lambda w: quantizer(w, True, {}), latent, incoming=incoming)
    bounded = np.tanh(latent)
    slope = 1 - bounded**2
    largest = np.unravel_index(np.abs(bounded).argmax(), bounded.shape)
    dorefa = incoming * slope / np.abs(bounded[largest])
    dorefa[largest] -= np.sign(bounded[largest]) * slope[largest] * (incoming * bounded).sum() / bounded[largest] ** 2
    scale = np.abs(found).max() / np.abs(unrescaled(num_bits, grid, latent)).max()
    np.testing.assert_allclose(gradient, dorefa * scale, rtol=1e-4, atol=1e-5)


@kernels
@pytest.mark.parametrize("rescale", ["constant", "stddev"])
@pytest.mark.parametrize(("num_bits", "grid"), CASES)
def test_integers_are_dorefas(num_bits, grid, rescale, shape, depthwise, n_out, integers_on_grid):
    latent = random_kernel(shape)
    found = integers_on_grid(SATWeightQuantizer(num_bits, grid, rescale, depthwise), latent, {}, latent)
    np.testing.assert_array_equal(found, integers_on_grid(DoReFaWeightQuantizer(num_bits, grid), latent, {}))
    assert -128 <= found.min() < found.max() <= 127


@pytest.mark.parametrize(
    "latent",
    [np.zeros((3, 4)), np.full((3, 4), 0.3), np.full((100, 10), -0.1), np.array([[0.2]])],
    ids=["zeros", "constant", "many constants", "one element"],
)
@pytest.mark.parametrize("rescale", ["constant", "stddev"])
@pytest.mark.parametrize("num_bits", [2, 4, 8])
def test_weights_without_variance(num_bits, rescale, latent, integers_on_grid, value_and_gradients):
    quantizer = SATWeightQuantizer(num_bits, rescale=rescale)
    integers = integers_on_grid(quantizer, latent, {}, latent)
    np.testing.assert_array_equal(integers, integers_on_grid(DoReFaWeightQuantizer(num_bits), latent, {}))
    value, gradient = value_and_gradients(lambda w: quantizer(w, True, {}), latent)
    if rescale == "constant":
        np.testing.assert_allclose(
            value, unrescaled(num_bits, None, latent.astype(np.float32)) / latent.shape[1] ** 0.5
        )
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_weights_of_any_size(size, integers_on_grid, value_and_gradients):
    latent = size * np.array([[1.0, -1.0], [0.5, 0.0]])
    quantizer = SATWeightQuantizer(4)
    integers_on_grid(quantizer, latent, {}, latent)
    value, gradient = value_and_gradients(lambda w: quantizer(w, True, {}), latent)
    assert value.std(ddof=1) == pytest.approx(2**-0.5, rel=1e-5)
    assert np.isfinite(gradient).all()


def test_rescales_that_are_refused():
    with pytest.raises(ValueError, match=r"rescale must be one of \('rules', 'constant', .* Received: rescale='other'"):
        SATWeightQuantizer(4, rescale="other")
    with pytest.raises(ValueError, match="use 'symmetric'"):
        SATWeightQuantizer(8, "odd")


def test_config_round_trip_of_the_rescale(round_trip):
    assert round_trip(SATWeightQuantizer(3, "odd", rescale="stddev"))["config"]["rescale"] == "stddev"
