"""`quantize_model` and `strip`: what they keep, what they take, what they refuse."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from satkeras import SCHEMES, learned_variables, quantize_model, set_thresholds, strip
from satkeras.models.insertion import has_quantizer
from satkeras.quantizers import (
    InputQuantizer,
    PACTQuantizer,
)
from tests.satkeras.small_models import built, sequential, small_model


def float_weights(model):
    """Every weight of a quantized model that its float model has, by the name within the layer; kernels are latent."""
    inside = {
        layer.layer.name if has_quantizer(layer) else layer.name: layer for layer in model.layers if layer.weights
    }
    return {
        f"{layer.name}/{index}": inside[layer.name].get_weights()[index]
        for layer in strip(model).layers
        for index in range(len(layer.get_weights()))
    }


def test_the_model_itself_is_not_changed(residual_model):
    identities = [id(layer) for layer in residual_model.layers]
    config, weights = residual_model.to_json(), residual_model.get_weights()
    x = np.ones((1, 8, 8, 3), np.float32)
    result = residual_model(x).numpy()
    quantize_model(residual_model)
    assert [id(layer) for layer in residual_model.layers] == identities
    assert residual_model.to_json() == config
    np.testing.assert_array_equal(residual_model(x), result)
    for now, then in zip(residual_model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(now, then)


def test_the_copy_shares_no_variable_and_starts_from_the_weights(residual_model, train):
    for variable in residual_model.weights:
        variable.assign(np.random.default_rng(1).uniform(0.5, 1, variable.shape))
    before = {layer.name: layer.get_weights() for layer in residual_model.layers if layer.weights}
    model = quantize_model(residual_model)
    assert not {id(variable) for variable in model.weights} & {id(variable) for variable in residual_model.weights}
    found = float_weights(model)
    assert len(found) == sum(map(len, before.values()))
    for name, weights in before.items():
        for index, weight in enumerate(weights):
            np.testing.assert_array_equal(found[f"{name}/{index}"], weight)
    train(model)
    for name, weights in before.items():
        for weight, kept in zip(weights, residual_model.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(weight, kept)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_step_moves_every_trainable_variable(scheme, residual_model, images, train):
    # PACT's own gradient of alpha is 0 below the clip, and x's is 0 above: put values on both sides of every clip.
    residual_model.get_layer("head").bias.assign(np.linspace(0, 0.03, 6))
    learned = SCHEMES[scheme]
    for field in ("activations", "last_activations") if scheme in ("sat", "pact") else ():
        reachable = dataclasses.replace(getattr(learned, field), initial_alpha=0.01)
        learned = dataclasses.replace(learned, **{field: reachable})
    model = quantize_model(residual_model, learned)
    if scheme == "qn":
        set_thresholds(model, images[0])
    before = {variable.name: variable.numpy() for variable in model.trainable_variables}
    train(model)
    still = [v.name for v in model.trainable_variables if np.array_equal(v.numpy(), before[v.name])]
    # A bias before a batch norm shifts nothing.
    assert [name for name in still if "depthwise/bias" not in name] == []
    clips = learned_variables(model, "clip")
    assert len(clips) == (3 if scheme in ("sat", "pact") else 0)
    assert np.isfinite(model(np.ones((1, 8, 8, 3), np.float32))).all()


def test_alpha_decay_reaches_the_loss_and_shrinks_alpha(train):
    scheme = dataclasses.replace(SCHEMES["sat"], last_activations=PACTQuantizer(8, initial_alpha=10.0, alpha_decay=0.5))
    model = quantize_model(built(small_model()), scheme)
    assert [float(loss) for loss in model.losses] == pytest.approx([0.5 * 10**2])
    (alpha,) = (variable for variable in model.trainable_variables if "alpha" in variable.name)
    train(model, epochs=3)
    assert 0 < float(alpha) < 9


@pytest.mark.parametrize(
    "stack",
    [
        [layers.Conv2D(3, 3, activation="relu", name="conv"), layers.Dense(5, activation="softmax", name="logits")],
        [
            layers.Conv2D(3, 3, activation=tf.nn.relu, name="conv"),
            layers.Dense(5, activation=tf.nn.softmax, name="logits"),
        ],
        [layers.Conv2D(3, 3, name="conv"), layers.ReLU(), layers.Dense(5, name="logits"), layers.Softmax()],
        [
            layers.Conv2D(3, 3, name="conv"),
            layers.Activation("relu"),
            layers.Dense(5, name="logits"),
            layers.Activation("softmax"),
        ],
    ],
    ids=["string", "function", "layer", "activation layer"],
)
def test_activations_in_any_form(stack, quantizers_of):
    at = next(index for index, layer in enumerate(stack) if isinstance(layer, layers.Dense))
    model = built(tf_keras.Sequential([*stack[:at], layers.Flatten(), *stack[at:]]))
    quantized = quantize_model(model)
    relus = [layer.name for layer in quantized.layers if isinstance(layer, layers.ReLU)]
    assert len(relus) == 1
    assert quantizers_of(quantized)[f"quant_{relus[0]}_output"] == PACTQuantizer(8, initial_alpha=10.0)
    assert any(isinstance(layer, layers.Softmax) for layer in quantized.layers)
    x = np.random.default_rng(0).uniform(0, 255, (3, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(strip(quantize_model(model, "int8"))(x), model(x), rtol=1e-5)


def test_two_stages(residual_model, train, quantizers_of):
    clamped = train(quantize_model(residual_model, weight_bits=None, activation_bits=None), epochs=2)
    latent = float_weights(clamped)
    quantized = quantize_model(clamped, weight_bits=4, activation_bits=4)
    found = float_weights(quantized)
    assert found.keys() == latent.keys()
    for name, weight in latent.items():
        np.testing.assert_array_equal(found[name], weight, err_msg=name)
    assert quantizers_of(quantized).keys() == quantizers_of(quantize_model(residual_model)).keys()
    assert {float(v) for v in quantized.trainable_variables if "alpha" in v.name} == {8.0}
    train(quantized)


def test_clamped_full_precision_rescales_where_no_batch_norm_follows():
    model = built(small_model())
    clamped = quantize_model(model, weight_bits=None, activation_bits=None)
    kernel, bias = model.get_layer("logits").get_weights()
    bounded = np.tanh(kernel) / np.abs(np.tanh(kernel)).max()
    # SAT's Rule I, with a pool that averages nothing: fewer classes than ten times the features.
    expected = bounded * np.sqrt(0.1 / len(kernel) / bounded.var(ddof=1))
    x = np.random.default_rng(0).normal(size=(2, kernel.shape[0])).astype(np.float32)
    np.testing.assert_allclose(clamped.get_layer("quant_logits")(x), x @ expected + bias, rtol=1e-3, atol=1e-4)


def test_strip_gives_the_float_model_back(residual_model):
    inside = strip(quantize_model(residual_model, "int8"))
    canonical = strip(quantize_model(inside, "int8"))
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(inside(x), residual_model(x), rtol=1e-5)
    # The second round trip changes nothing at all.
    assert [layer.get_config() for layer in canonical.layers] == [layer.get_config() for layer in inside.layers]
    assert (inside.name, inside.input_names) == (residual_model.name, ["image"])
    assert {layer.name for layer in inside.layers} >= {layer.name for layer in residual_model.layers}


def test_a_layer_called_twice_stays_one_layer_and_trains(images, train):
    inputs = tf_keras.Input((8, 8, 3), name="image")
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    x = layers.ReLU(name="relu")(shared(inputs))
    x = layers.Flatten()(layers.ReLU(name="relu_2")(shared(x)))
    model = quantize_model(tf_keras.Model(inputs, layers.Dense(5, activation="softmax", name="logits")(x)))
    wrapper = model.get_layer("quant_shared")
    assert len(wrapper._inbound_nodes) >= 2
    before = [variable.numpy() for variable in wrapper.trainable_variables]
    train(model, epochs=2)
    for variable, value in zip(wrapper.trainable_variables, before, strict=True):
        assert not np.array_equal(variable.numpy(), value), variable.name
    assert np.isfinite(strip(model).predict(images[0], verbose=0)).all()


def test_unsupported_layers_are_all_listed():
    inputs = tf_keras.Input((8, 8, 4), name="image")
    x = layers.Conv2D(4, 3, data_format="channels_first", name="turned")(inputs)
    x = layers.BatchNormalization(axis=1, name="norm")(x)
    x = layers.Conv2D(4, 1, name="fine")(layers.LayerNormalization(name="layer_norm")(x))
    x = layers.LSTM(3, name="recurrent")(layers.Reshape((-1, 4))(x))
    with pytest.raises(ValueError, match="4 layers of .* cannot be quantized") as caught:
        quantize_model(tf_keras.Model(inputs, x))
    text = str(caught.value)
    for line in (
        "'turned' (Conv2D): needs data_format='channels_last'",
        "'norm' (BatchNormalization): needs axis=-1, has axis=",
        "'layer_norm' (LayerNormalization): it divides by what it reads",
        "'recurrent' (LSTM): a recurrent layer",
    ):
        assert line in text
    assert "fine" not in text


def test_training_on_images_in_other_units_stops(images):
    model = quantize_model(built(small_model()))
    model.compile("sgd", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = images
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"input_range=\(0.0, 255.0\)"):
        model.fit(x / 255, y, verbose=0)
    model.fit(x, y, verbose=0)


@pytest.mark.parametrize(
    ("input_range", "signed"), [((0, 255), False), ((0, 1), False), ((-1, 127 / 128), True), ((-128, 127), True)]
)
def test_input_range(input_range, signed, quantizers_of):
    pooled = sequential(layers.AveragePooling2D(name="pool"), layers.Flatten(), layers.Dense(2, name="logits"))
    narrow = {"logits": {"activation_bits": 4}}
    found = quantizers_of(quantize_model(pooled, input_range=input_range, overrides=narrow))
    assert found["quant_image_output"] == InputQuantizer(*map(float, input_range))
    assert found["quant_logits_input"].signed is signed


def test_regularizers_see_the_latent_weights():
    regularized = layers.Dense(5, kernel_regularizer=tf_keras.regularizers.L2(0.1), name="regularized")
    model = built(tf_keras.Sequential([regularized]), (None, 4))
    quantized = quantize_model(model, weight_bits=2)
    kernel = regularized.get_weights()[0]
    assert [float(loss) for loss in quantized.losses] == pytest.approx([0.1 * (kernel**2).sum()], rel=1e-5)


def test_batch_norms_called_at_inference_keep_their_statistics(train):
    inputs = tf_keras.Input((8, 8, 3))
    x = layers.BatchNormalization(name="fixed")(layers.Conv2D(4, 3)(inputs), training=False)
    x = layers.BatchNormalization(name="moving")(layers.Conv2D(4, 3)(x))
    quantized = quantize_model(tf_keras.Model(inputs, layers.Dense(5)(layers.Flatten()(x))))
    train(quantized)
    assert not quantized.get_layer("fixed").moving_mean.numpy().any()
    assert quantized.get_layer("moving").moving_mean.numpy().any()


def test_several_inputs_and_outputs_keep_their_order():
    left, right = (tf_keras.Input((4,), name=name) for name in ("left", "right"))
    x = layers.ReLU()(layers.Add()([right, left]))
    outputs = [layers.Dense(width, name=f"head_{width}")(x) for width in (2, 3)]
    model = tf_keras.Model([right, left], outputs)
    for copy in (quantize_model(model), strip(quantize_model(model))):
        assert copy.input_names == ["right", "left"]
        assert [output.shape[-1] for output in copy.outputs] == [2, 3]


def test_frozen_layers_stay_frozen(residual_model, train):
    residual_model.get_layer("conv").trainable = False
    quantized = train(quantize_model(residual_model, "int8"))
    (before,), (after,) = (model.get_layer("conv").get_weights() for model in (residual_model, strip(quantized)))
    np.testing.assert_array_equal(after, before)


def test_a_quantized_layer_can_be_frozen_and_thawed(residual_model, train):
    quantized = quantize_model(residual_model)
    frozen = [quantized.get_layer("quant_head"), quantized.get_layer("quant_head_relu_output")]
    for layer in frozen:
        layer.trainable = False
    before = [layer.get_weights() for layer in frozen]
    assert len(quantized.weights) == len(quantize_model(residual_model).weights)
    train(quantized)
    for layer, weights in zip(frozen, before, strict=True):
        for now, then in zip(layer.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(now, then)
        layer.trainable = True
    train(quantized)
    for layer, weights in zip(frozen, before, strict=True):
        assert any(not np.array_equal(*pair) for pair in zip(layer.get_weights(), weights, strict=True))


def test_a_frozen_model_changes_nothing(residual_model, train, images):
    quantized = quantize_model(residual_model, "int8")
    train(quantized)
    quantized.trainable = False
    assert quantized.trainable_weights == []
    predicted = quantized(images[0], training=True).numpy()
    np.testing.assert_array_equal(predicted, quantized(images[0], training=False))
