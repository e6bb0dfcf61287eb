"""Which tensor gets which quantizer, seen in the quantized model."""

import dataclasses

import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from satkeras import SCHEMES, quantize_model
from satkeras.models.graph import read_graph
from satkeras.quantizers import (
    DoReFaActivationQuantizer,
    DoReFaWeightQuantizer,
    InputQuantizer,
    MaxWeightQuantizer,
    MovingRangeQuantizer,
    PACTQuantizer,
    SATWeightQuantizer,
)

ONE_WIDTH = dataclasses.replace(SCHEMES["sat"], first_layer_bits=None, last_layer_bits=None)
UNSIGNED_STREAM, SIGNED_STREAM = MovingRangeQuantizer(8), MovingRangeQuantizer(8, signed=True)


def sequential(*stack, shape=(8, 8, 3)):
    return tf_keras.Sequential([layers.InputLayer(shape, name="image"), *stack])


def test_residual_model(residual_model, quantizers_of):
    assert quantizers_of(quantize_model(residual_model)) == {
        "quant_image_output": InputQuantizer(0.0, 255.0),
        "quant_stem": DoReFaWeightQuantizer(8),
        "quant_stem_relu_output": UNSIGNED_STREAM,
        "quant_conv_input": PACTQuantizer(4),
        "quant_conv": DoReFaWeightQuantizer(4),
        "quant_conv_relu_output": PACTQuantizer(4),
        "quant_depthwise": DoReFaWeightQuantizer(4),
        "quant_depthwise_bn_output": SIGNED_STREAM,
        # A sum cannot clip a narrow two-sided grid itself: it is stored at 8 bits and the branch is narrow.
        "quant_add_output": SIGNED_STREAM,
        "quant_head_input": PACTQuantizer(4, signed=True),
        "quant_head": SATWeightQuantizer(4),
        "quant_head_relu_output": UNSIGNED_STREAM,
        # The pooled tensor stays on the stream's 8 bits.
        "quant_logits": SATWeightQuantizer(8, averaged=64),
        "quant_logits_output": SIGNED_STREAM,
    }


def test_nothing_branches_off_at_8_bits(residual_model, quantizers_of):
    found = quantizers_of(quantize_model(residual_model, weight_bits=8, activation_bits=8))
    assert not [name for name in found if name.endswith("_input")]
    assert found["quant_stem_relu_output"] == PACTQuantizer(8)
    assert found["quant_add_output"] == PACTQuantizer(8, signed=True)


@pytest.mark.parametrize(
    ("scheme", "weights", "activations"),
    [
        ("pact", DoReFaWeightQuantizer(3), PACTQuantizer(5, calibrated=False)),
        ("dorefa", DoReFaWeightQuantizer(3), DoReFaActivationQuantizer(5)),
        ("int8", MaxWeightQuantizer(3, depthwise=True), MovingRangeQuantizer(5)),
        ("sat", DoReFaWeightQuantizer(3), PACTQuantizer(5)),
    ],
)
def test_schemes_by_name(scheme, weights, activations, residual_model, quantizers_of):
    found = quantizers_of(quantize_model(residual_model, scheme, weight_bits=3, activation_bits=5))
    assert (found["quant_depthwise"], found["quant_conv_relu_output"]) == (weights, activations)


def bound_of(relu):
    """Where a layer cuts off what it gets, None if nowhere."""
    result = float(tf.reduce_max(relu(tf.fill((1, *relu.output_shape[1:]), 100.0), training=True)))
    return None if result == 100 else result


def test_relu6_goes_exactly_where_a_learned_clip_bounds_it(residual_model):
    def bounds(scheme, **bits):
        model = quantize_model(residual_model, scheme, **bits)
        return [bound_of(model.get_layer(name)) for name in ("stem_relu", "conv_relu")]

    # Off the stream branches a learned clip, but the stream itself is stored under another quantizer.
    assert bounds("sat") == [6, None]
    assert bounds("pact", activation_bits=8) == [None, None]
    for scheme in ("dorefa", "int8"):
        assert bounds(scheme) == [6, 6]
    assert bounds("sat", activation_bits=None) == [6, 6]


@pytest.mark.parametrize("final", ["relu6", "logits"])
def test_relu6_stays_where_it_makes_an_output(final, quantizers_of):
    relu = layers.ReLU(6.0, name="relu6")
    stack = [layers.Conv2D(2, 3, name="conv"), relu]
    model = sequential(*stack, *([layers.Flatten(), layers.Dense(2, name="logits")] if final == "logits" else []))
    quantized = quantize_model(model)
    assert bound_of(quantized.get_layer("relu6")) == (6 if final == "relu6" else None)


def test_convolutions_that_want_the_same_share_a_branch(quantizers_of):
    inputs = tf_keras.Input((8, 8, 3), name="image")
    stream = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(inputs)
    left, right, other = (layers.Conv2D(4, 1, name=name)(stream) for name in ("left", "right", "other"))
    x = layers.Add(name="one")([left, right])
    x = layers.Add(name="two")([x, other])
    x = layers.Flatten()(layers.Add(name="three")([x, stream]))
    model = quantize_model(
        tf_keras.Model(inputs, layers.Dense(2, name="logits")(x)), overrides={"other": {"activation_bits": 2}}
    )
    found = quantizers_of(model)
    branches = {name: quantizer for name, quantizer in found.items() if name.endswith("_input")}
    assert branches == {"quant_left_input": PACTQuantizer(4), "quant_other_input": PACTQuantizer(2)}
    branch = model.get_layer("quant_left_input").output
    assert model.get_layer("quant_left").input is branch
    assert model.get_layer("quant_right").input is branch
    assert model.get_layer("quant_stem_relu_output").output is model.get_layer("quant_other_input").input


def test_convolutions_alone_on_a_tensor_need_no_stream(quantizers_of):
    inputs = tf_keras.Input((8, 8, 3), name="image")
    stem = layers.Conv2D(4, 3, activation="relu", name="stem")(inputs)
    left, right = (layers.Conv2D(4, 1, name=name)(stem) for name in ("left", "right"))
    outputs = layers.Dense(2)(layers.Flatten()(layers.Add()([left, right])))
    found = quantizers_of(quantize_model(tf_keras.Model(inputs, outputs)))
    assert found["quant_stem_relu_output"] == PACTQuantizer(4)
    assert not [name for name in found if name.endswith("_input")]


@pytest.mark.parametrize("batch_norm", [False, True])
def test_signed_inputs_get_two_sided_grids(batch_norm, quantizers_of):
    norm = [layers.BatchNormalization(name="bn")] if batch_norm else []
    model = sequential(layers.Conv2D(2, 3, name="a"), *norm, layers.Conv2D(2, 3, name="b"), layers.Flatten())
    model.add(layers.Dense(2, name="c"))
    found = quantizers_of(quantize_model(model))
    assert found["quant_bn_output" if batch_norm else "quant_a_output"] == PACTQuantizer(4, signed=True)
    assert found["quant_b_output"] == PACTQuantizer(8, signed=True, initial_alpha=10.0)
    assert found["quant_c_output"] == SIGNED_STREAM


def test_the_first_layer_is_first_behind_a_normalization_too(quantizers_of):
    stack = [layers.BatchNormalization(name="standardize"), layers.Conv2D(4, 3, name="stem"), layers.ReLU(name="relu")]
    found = quantizers_of(quantize_model(sequential(*stack, layers.Conv2D(4, 3, name="last"))))
    assert found["quant_standardize_output"] == PACTQuantizer(8, signed=True)
    assert found["quant_stem"].num_bits == 8


def test_several_first_and_last_layers(quantizers_of):
    inputs = tf_keras.Input((8, 8, 3), name="image")
    padded = layers.ZeroPadding2D()(inputs)
    one, two = (layers.Conv2D(2, 3, name=name, activation="relu")(padded) for name in ("one", "two"))
    x = layers.Conv2D(2, 3, activation="relu", name="middle")(layers.Add()([one, two]))
    x = layers.Flatten()(x)
    heads = [layers.Dense(2, name=name)(x) for name in ("boxes", "classes")]
    found = quantizers_of(quantize_model(tf_keras.Model(inputs, heads)))
    widths = {name: found[f"quant_{name}"].num_bits for name in ("one", "two", "middle", "boxes", "classes")}
    assert widths == {"one": 8, "two": 8, "middle": 4, "boxes": 8, "classes": 8}


def test_only_layers_without_batch_norm_are_rescaled(quantizers_of):
    inputs = tf_keras.Input((8, 8, 3))
    alone = layers.Conv2D(2, 3, name="alone")(inputs)
    normed = layers.BatchNormalization()(layers.Conv2D(2, 3, name="normed")(alone))
    partly = layers.Conv2D(2, 3, name="partly")(normed)
    summed = layers.Add()([layers.BatchNormalization()(partly), partly])
    found = quantizers_of(quantize_model(tf_keras.Model(inputs, layers.Conv2D(2, 1, name="last")(summed))))
    rescaled = {name for name, quantizer in found.items() if isinstance(quantizer, SATWeightQuantizer)}
    assert rescaled == {"quant_alone", "quant_partly", "quant_last"}


@pytest.mark.parametrize(
    ("head", "averaged"),
    {
        "global": ([layers.GlobalAveragePooling2D()], 64),
        "global, kept": ([layers.GlobalAveragePooling2D(keepdims=True), layers.Flatten()], 64),
        "dropped": ([layers.GlobalAveragePooling2D(), layers.Dropout(0.5)], 64),
        "by parts": ([layers.AveragePooling2D((4, 2)), layers.Flatten()], 8),
        "largest": ([layers.GlobalMaxPooling2D()], 1),
        "none": ([layers.Flatten()], 1),
    }.values(),
)
def test_the_last_layer_is_told_what_the_pool_before_it_averages(head, averaged, quantizers_of):
    stack = [layers.Conv2D(4, 1, name="first"), layers.ReLU(), *head, layers.Dense(5, name="last")]
    found = quantizers_of(quantize_model(sequential(*stack)))
    assert found["quant_last"].averaged == averaged
    assert found["quant_first"].averaged is None


def test_depthwise_kernels_are_told_apart(quantizers_of):
    model = sequential(layers.DepthwiseConv2D(3, name="depthwise"), layers.Conv2D(2, 3, name="conv"))
    found = quantizers_of(quantize_model(model))
    assert (found["quant_depthwise"].depthwise, found["quant_conv"].depthwise) == (True, False)


def test_what_needs_no_quantizer(quantizers_of):
    model = sequential(
        layers.Conv2D(4, 3, name="conv"),
        layers.BatchNormalization(),
        layers.ReLU(name="relu"),
        layers.MaxPooling2D(),
        layers.Dropout(0.1),
        layers.Flatten(),
        layers.Dense(2, activation="softmax", name="logits"),
    )
    names = ["quant_image_output", "quant_conv", "quant_relu_output", "quant_logits", "quant_logits_output"]
    assert list(quantizers_of(quantize_model(model))) == names


def bottleneck(name, x, *more):
    """A pointwise convolution and batch norm, then maybe a ReLU6."""
    x = layers.Conv2D(4, 1, use_bias=False, name=name)(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    for layer in more:
        x = layer(x)
    return x


def test_linear_bottlenecks(quantizers_of):
    inputs = tf_keras.Input((8, 8, 3), name="image")
    direct = bottleneck("direct", bottleneck("stem", inputs))
    x = bottleneck("expand", direct, layers.ReLU(6.0, name="relu"))
    x = layers.Add(name="sum")([direct, bottleneck("project", x)])
    model = tf_keras.Model(inputs, bottleneck("last", x))
    assert quantizers_of(quantize_model(model, ONE_WIDTH)) == {
        "quant_image_output": InputQuantizer(0.0, 255.0),
        "quant_stem_input": PACTQuantizer(4),
        **{f"quant_{name}": DoReFaWeightQuantizer(4) for name in ("stem", "direct", "expand", "project", "last")},
        "quant_stem_bn_output": PACTQuantizer(4, signed=True),
        "quant_direct_bn_output": SIGNED_STREAM,
        "quant_expand_input": PACTQuantizer(4, signed=True),
        "quant_relu_output": PACTQuantizer(4),
        "quant_project_bn_output": SIGNED_STREAM,
        "quant_sum_output": SIGNED_STREAM,
        "quant_last_input": PACTQuantizer(4, signed=True),
        "quant_last_bn_output": SIGNED_STREAM,
    }


def test_preactivation(quantizers_of):
    inputs = tf_keras.Input((8, 8, 3), name="image")
    stream = layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    x = layers.ReLU(name="relu")(layers.BatchNormalization()(stream))
    x = layers.Add(name="sum")([stream, layers.Conv2D(4, 3, padding="same", name="branch")(x)])
    model = quantize_model(tf_keras.Model(inputs, x), ONE_WIDTH, input_range=(-128, 127))
    assert quantizers_of(model) == {
        "quant_image_output": InputQuantizer(-128.0, 127.0),
        "quant_stem_input": PACTQuantizer(4, signed=True),
        "quant_stem": SATWeightQuantizer(4),
        "quant_stem_output": SIGNED_STREAM,
        "quant_relu_output": PACTQuantizer(4),
        "quant_branch": SATWeightQuantizer(4, averaged=1),
        "quant_branch_output": SIGNED_STREAM,
        "quant_sum_output": SIGNED_STREAM,
    }


def test_the_stream_itself_goes_past_its_branches(residual_model):
    nodes = read_graph(quantize_model(residual_model)).nodes
    sources = {node.layer.name: [parent.layer.name for parent in node.inputs] for node in nodes}
    assert sources["quant_conv"] == ["quant_conv_input"]
    assert sources["quant_conv_input"] == ["quant_stem_relu_output"]
    assert sources["add"] == ["quant_depthwise_bn_output", "quant_stem_relu_output"]
    assert sources["quant_head_input"] == ["quant_add_output"]


@pytest.mark.parametrize("batch_norm_after", ["first call", "second call"])
def test_a_shared_kernel_is_rescaled_if_any_call_lacks_a_batch_norm(batch_norm_after, quantizers_of):
    inputs = tf_keras.Input((8, 8, 3))
    shared = layers.Conv2D(3, 1, name="shared")
    norms = [layers.BatchNormalization(), layers.ReLU()]
    first, second = norms if batch_norm_after == "first call" else reversed(norms)
    model = tf_keras.Model(inputs, second(shared(first(shared(inputs)))))
    assert quantizers_of(quantize_model(model))["quant_shared"] == SATWeightQuantizer(8)


def test_an_override_quantizes_the_input_of_its_layer_only(quantizers_of):
    """Also in a model whose other tensors stay in full precision: an override must not be ignored."""
    stack = [layers.Conv2D(2, 3, activation="relu", name=name) for name in ("a", "b", "c")]
    model = sequential(*stack)
    found = quantizers_of(quantize_model(model, activation_bits=None, overrides={"b": {"activation_bits": 4}}))
    assert found.get("quant_a_relu_output") == PACTQuantizer(4)
