"""Tests of the plan against float64 arithmetic on the trained model's weights."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import satkeras
from satkeras.models.insertion import has_quantizer
from tflite_export.errors import ExportError
from tflite_export.lowering.lower import make_plan
from tflite_export.operators import (
    Add,
    AveragePool,
    Convolution,
    DepthwiseConvolution,
    FullyConnected,
    LinearOperator,
    MaxPool,
    Pad,
    Reshape,
)


def sequential(*stack, shape=(8, 8, 3)) -> tf_keras.Model:
    return tf_keras.Sequential([layers.Input(shape), *stack])


def normalized(gamma, **conv) -> tf_keras.Model:
    """A convolution with a batch norm of these gammas and random statistics, and a ReLU."""
    gamma = np.asarray(gamma, np.float32)
    model = sequential(
        layers.Conv2D(len(gamma), 3, name="conv", **conv),
        layers.BatchNormalization(name="bn"),
        layers.ReLU(name="relu"),
        layers.Conv2D(2, 1, name="last"),
    )
    rng = np.random.default_rng(0)
    beta, mean = rng.normal(0, 1, (2, len(gamma)))
    model.get_layer("bn").set_weights([gamma, beta, mean, rng.uniform(0.5, 2, len(gamma))])
    return model


def inner(model, name):
    found = next(layer for layer in model.layers if layer.name in (name, f"quant_{name}"))
    return found.layer if has_quantizer(found) else found


def kinds(plan) -> list[str]:
    return [operator.builtin for operator in plan.operators]


@pytest.fixture(scope="session")
def planned(trained):
    """A function for the quantized model after a training step, and its plan."""

    def planned(model, **options):
        quantized = trained(model, **options)
        return quantized, make_plan(quantized)

    return planned


def folded(model, conv: str, bn: str, bits: int):
    """The real weights and biases of a convolution with its batch norm folded in, in float64."""
    norm = inner(model, bn)
    integers = satkeras.integer_weights(model)[f"quant_{conv}"]
    kernel = integers.integers * integers.params.scale.astype(np.float64)
    gamma, beta, mean, variance = (values.astype(np.float64) for values in norm.get_weights())
    factor = gamma / np.sqrt(variance + norm.epsilon)
    bias = inner(model, conv).bias.numpy().astype(np.float64)
    return kernel * factor, (bias - mean) * factor + beta


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_batch_norm_folds_into_scales_and_biases(planned, bits):
    gamma = [1.5, -0.7, 0.3, -2]
    model, plan = planned(normalized(gamma), overrides={"conv": {"weight_bits": bits}})
    operator = plan.operators[0]
    kernel, bias = folded(model, "conv", "bn", bits)
    np.testing.assert_allclose(operator.weights * operator.weight_scale.astype(np.float64), kernel, rtol=1e-6)
    step = operator.bias_scale.astype(np.float64)
    error = operator.bias * step - bias
    assert (np.abs(error) <= (0.5 + 1e-6 * np.abs(operator.bias)) * step).all()
    # A rounded bias is not the float one: the grid is what decides.
    np.testing.assert_array_equal(operator.bias, np.rint(bias / step))


@pytest.mark.thinned(2)
@pytest.mark.parametrize("bits, grid_top", [(2, 3), (3, 7), (4, 15), (7, 127), (8, 127)])
def test_weights_spread_over_int8(planned, bits, grid_top):
    model, plan = planned(normalized([1, -1]), overrides={"conv": {"weight_bits": bits}})
    spread = 127 // grid_top
    stored = plan.operators[0].weights.astype(int)
    integers = satkeras.integer_weights(model)["quant_conv"].integers
    np.testing.assert_array_equal(stored, integers * spread * [1, -1])
    assert np.abs(stored).max() == grid_top * spread


@pytest.mark.thinned(3)
@pytest.mark.parametrize("bits", range(2, 9))
def test_unsigned_activations_lie_at_the_top_of_int8(planned, bits):
    _, plan = planned(normalized([1, 2]), overrides={"last": {"activation_bits": bits}})
    first = plan.operators[0]
    assert first.output.zero_point == 128 - 2**bits
    assert first.output.highest - first.output.zero_point == 2**bits - 1
    assert first.activation == ("relu" if bits < 8 else "none")  # at 8 bits int8's own end is the lower clip


@pytest.mark.thinned(2)
@pytest.mark.parametrize("bits", [2, 3, 5, 7])
def test_signed_narrow_activations_are_clipped_at_both_ends(planned, bits):
    model = sequential(layers.Conv2D(4, 3), layers.Conv2D(4, 3), layers.Conv2D(2, 1))
    _, plan = planned(model, activation_bits=bits)
    first, second = plan.operators[:2]
    top = 2 ** (bits - 1) - 1
    assert (first.activation, first.output.zero_point) == ("relu_n1_to_1", 0)
    assert (first.output.lowest, first.output.highest) == (-top, top)
    assert first.output.scale == np.float32(1 / top)
    # The weights that read it make up for its units.
    np.testing.assert_allclose(
        second.bias_scale.astype(float) * second.output.step / second.output.scale,
        second.weight_scale.astype(float) * first.output.scale * second.output.step / second.output.scale,
        rtol=1e-6,
    )


@pytest.mark.thinned(2)
@pytest.mark.parametrize("gamma", [0.0, 1e-30, -1e-30, 1e-12])
def test_a_channel_whose_gamma_vanishes_is_constant(trained, gamma):
    model = trained(normalized([1, gamma]), rate=0.0)
    (operator, *_) = make_plan(model).operators
    assert not operator.weights[..., 1].any()
    assert operator.weights[..., 0].any()
    beta = inner(model, "bn").beta.numpy()[1]
    value = operator.bias[1] * float(operator.bias_scale[1])
    assert value == pytest.approx(np.rint(max(beta, 0) / operator.output.step) * operator.output.step, rel=1e-5)


def test_a_tensor_that_was_always_zero(chain):
    """A dead ReLU: its 8-bit range is 0, though training has seen it."""
    image = layers.Input((6, 6, 3))
    dead = layers.Conv2D(4, 3, activation="relu", bias_initializer=tf_keras.initializers.Constant(-1e6))(image)
    alive = layers.Conv2D(4, 3, activation="relu")(image)
    model = tf_keras.Model(image, layers.Conv2D(2, 1)(layers.Add()([dead, alive])))
    try:
        assert chain(model).differing == 0
    except ExportError as refusal:
        assert "train the model for at least one step" not in str(refusal)


def test_a_gamma_too_small_for_int32_but_not_constant_is_refused(trained):
    """Its bias cannot be held in steps of its sum, and its sum still moves its result across a level."""
    model = trained(normalized([1, 1], use_bias=True), rate=0.0)
    inner(model, "bn").gamma.assign([1, 1e-7])
    # A bias exactly between two levels: the least of sums decides.
    (output,) = [op.output for op in make_plan(model).operators][:1]
    inner(model, "bn").beta.assign([0, 1.5 * output.step])
    inner(model, "bn").moving_mean.assign([0, 0])
    inner(model, "conv").bias.assign([0, 0])
    with pytest.raises(ExportError, match=r"channels \[1\] are so small beside their bias"):
        make_plan(model)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_average_pools_stay_on_the_grid_of_their_input(planned, padding):
    pool = layers.AveragePooling2D((2, 3), strides=(1, 2), padding=padding)
    _, plan = planned(sequential(layers.Conv2D(4, 3, activation="relu"), pool, layers.Conv2D(2, 1)))
    first, pool, last = plan.operators
    assert isinstance(pool, AveragePool)
    assert (pool.pool, pool.window.strides, pool.window.padding) == ((2, 3), (1, 2), padding.upper())
    assert (pool.output.scale, pool.output.zero_point) == (first.output.scale, first.output.zero_point)
    assert last.inputs == (pool.output,)


@pytest.mark.parametrize("side, stored", [(6, 127), (260, 1)])
def test_a_mean_before_no_kernel_is_a_depthwise_convolution(exported, trained, side, stored):
    """With weights of 127 int32 could not hold the sum of the larger image."""
    stack = [layers.AveragePooling2D(1), layers.GlobalAveragePooling2D()]
    model = trained(sequential(*stack, shape=(side, side, 2)))
    plan = make_plan(model)
    assert kinds(plan) == ["AVERAGE_POOL_2D", "DEPTHWISE_CONV_2D", "RESHAPE"]
    mean = plan.operators[1]
    assert (mean.weights == stored).all() and mean.output.scale < 0.8 * mean.inputs[0].scale
    assert exported(model).differing == 0


@pytest.mark.parametrize("keepdims", [False, True])
def test_a_global_average_is_a_pool_of_the_whole_image(planned, keepdims):
    mean = layers.GlobalAveragePooling2D(keepdims=keepdims)
    _, plan = planned(sequential(layers.Conv2D(4, 3, activation="relu"), mean, layers.Flatten(), layers.Dense(2)))
    pool = plan.operators[1]
    assert kinds(plan)[1:-1] == ["AVERAGE_POOL_2D", "RESHAPE"]
    assert (pool.pool, pool.window.strides) == ((6, 6), (1, 1))
    assert (pool.output.scale, pool.output.zero_point) == (pool.inputs[0].scale, pool.inputs[0].zero_point)


@pytest.mark.parametrize(
    "size, kernel, stride, pad, folds",
    [
        (8, 3, 1, 1, True),
        (8, 3, 2, ((0, 1), (0, 1)), True),
        (8, 3, 2, 1, False),  # TensorFlow's SAME puts nothing before an even axis
        (7, 3, 2, 1, True),
        (8, 3, 1, 2, False),
        (8, 1, 1, 1, False),
        (8, 5, 1, 2, True),
    ],
)
@pytest.mark.parametrize("layer", [layers.Conv2D, layers.DepthwiseConv2D])
def test_padding_folds_only_where_same_equals_it(planned, layer, size, kernel, stride, pad, folds):
    linear = layer(3, kernel, strides=stride) if layer is layers.Conv2D else layer(kernel, strides=stride)
    _, plan = planned(sequential(layers.ZeroPadding2D(pad), linear, shape=(size, size, 3)))
    assert any(isinstance(operator, Pad) for operator in plan.operators) != folds
    assert plan.operators[-1].window.padding == ("SAME" if folds else "VALID")


def test_dense_with_batch_norm_is_a_1x1_convolution(planned):
    model = sequential(layers.Dense(5), layers.BatchNormalization(), layers.ReLU(), layers.Dense(3), shape=(7,))
    model.layers[1].gamma.assign([1, 2, -1, 0.5, 3])
    _, plan = planned(model)
    assert kinds(plan) == ["RESHAPE", "CONV_2D", "RESHAPE", "FULLY_CONNECTED"]
    assert plan.operators[1].weights.shape == (1, 1, 7, 5)


@pytest.mark.parametrize("shape", [(6, 6, 3), (5,)])
def test_batch_norm_after_no_convolution_is_a_depthwise_one(planned, shape):
    last = layers.Conv2D(2, 1) if len(shape) == 3 else layers.Dense(2)
    _, plan = planned(sequential(layers.BatchNormalization(), layers.ReLU(), last, shape=shape))
    norm = next(operator for operator in plan.operators if isinstance(operator, DepthwiseConvolution))
    assert norm.weights.shape == (1, 1, shape[-1])
    assert (np.abs(norm.weights) == 127).all()


def test_a_relu_with_several_consumers(planned):
    image = layers.Input((8, 8, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(image)))
    x = layers.Add()([x, layers.Conv2D(4, 3, padding="same")(x)])
    _, plan = planned(tf_keras.Model(image, layers.Conv2D(2, 1)(x)))
    add = next(operator for operator in plan.operators if isinstance(operator, Add))
    assert all(any(x is operator.output for operator in plan.operators) for x in add.inputs)


def test_pooling_and_flattening_keep_the_scale(planned):
    model = sequential(
        layers.Conv2D(4, 3, activation="relu"), layers.MaxPooling2D(2), layers.Flatten(), layers.Dense(3)
    )
    _, plan = planned(model)
    assert kinds(plan) == ["CONV_2D", "MAX_POOL_2D", "RESHAPE", "FULLY_CONNECTED"]
    assert len({(x.scale, x.zero_point) for x in plan.tensors[:3]}) == 1


def test_global_max_pooling(planned):
    _, plan = planned(sequential(layers.Conv2D(4, 3, activation="relu"), layers.GlobalMaxPooling2D(), layers.Dense(3)))
    assert isinstance(plan.operators[1], MaxPool)
    assert plan.operators[1].pool == (6, 6)
    assert isinstance(plan.operators[2], Reshape)


def test_a_shared_layer_has_the_same_integers_at_every_call(planned):
    image = layers.Input((8, 8, 4))
    shared = layers.Conv2D(4, 3, padding="same", activation="relu", name="shared")
    _, plan = planned(tf_keras.Model(image, layers.Conv2D(2, 1)(shared(shared(image)))))
    first, second = [op for op in plan.operators if isinstance(op, Convolution)][:2]
    np.testing.assert_array_equal(first.weights, second.weights)


def test_several_inputs_and_outputs_keep_their_order(planned):
    inputs = [layers.Input((size, size, 3), name=f"in_{size}") for size in (4, 8, 6)]
    pooled = [layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1, activation="relu")(x)) for x in inputs]
    outputs = [layers.Dense(units)(x) for units, x in zip((5, 2, 7), reversed(pooled), strict=True)]
    _, plan = planned(tf_keras.Model(inputs, outputs))
    assert [x.shape for x in plan.inputs] == [(4, 4, 3), (8, 8, 3), (6, 6, 3)]
    assert [x.shape for x in plan.outputs] == [(5,), (2,), (7,)]


def test_fully_connected_has_one_scale(plan):
    dense = [operator for operator in plan.operators if isinstance(operator, FullyConnected)]
    assert dense
    assert all(len(np.unique(operator.weight_scale)) == 1 for operator in dense)


def test_every_tensor_is_written_before_it_is_read(plan):
    known = set(plan.inputs)
    for operator in plan.operators:
        assert known.issuperset(operator.inputs)
        known.add(operator.output)
    assert known.issuperset(plan.outputs)
    assert len({x.name for x in known}) == len(known)


def test_weights_and_biases_fit_their_types(plan):
    for operator in plan.operators:
        if isinstance(operator, LinearOperator):
            assert (operator.weights.dtype, operator.bias.dtype) == (np.int8, np.int32)
            assert np.abs(operator.weights.astype(int)).max() <= 127
            assert (operator.multiplier < 2**8).all()


# What cannot be exported.
