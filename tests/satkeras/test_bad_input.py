"""What a newcomer gets wrong, and that the error says what is required, what was received and what to do."""

import dataclasses
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras
from tf_keras import layers

from satkeras import SCHEMES, Scheme, integer_weights, quantize_model, strip
from satkeras.quantizers import PACTQuantizer

tfmot_quantize = tfmot.quantization.keras


def small_model(shape=(8, 8, 3), **options):
    stack = [layers.Conv2D(3, 3, activation="relu", name="conv", **options), layers.Flatten(name="flat")]
    return tf_keras.Sequential([layers.InputLayer(shape), *stack, layers.Dense(5, name="logits")], name="small")


def keras_3_model():
    stack = [keras.layers.Dense(3), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
    return keras.Sequential([keras.Input((4,)), *stack], name="new")


def with_weight(value, layer="conv", index=0):
    model = small_model()
    weights = model.get_layer(layer).get_weights()
    weights[index].flat[0] = value
    model.get_layer(layer).set_weights(weights)
    return model


class Subclassed(tf_keras.Model):
    def __init__(self):
        super().__init__(name="mine")
        self.dense = layers.Dense(2)

    def call(self, inputs):
        return tf.map_fn(tf.nn.relu, self.dense(inputs))


def built(model, shape=(None, 4)):
    model.build(shape)
    return model


def functional(make, shape=(4,)):
    inputs = tf_keras.Input(shape)
    return tf_keras.Model(inputs, make(inputs), name="functional")


NEEDED = r"needs a tf_keras model \(Keras 2\), the kind that TensorFlow Model Optimization works on. Received: "
NOT_KERAS_2 = {
    "path": (lambda: "model.h5", NEEDED + "model='model.h5'; load it with satkeras.load_model"),
    "none": (lambda: None, NEEDED + "model=None"),
    "layer": (lambda: layers.Dense(3), NEEDED + "model=<tf_keras.src.layers.core.dense.Dense"),
    "class": (lambda: Subclassed, NEEDED + "model=<class .*Subclassed'>"),
    "keras 3": (
        keras_3_model,
        NEEDED + r"'new', a model of Keras 3. satkeras.quantize_model\(model\) makes one of it",
    ),
    "keras 3 functional": (
        lambda: keras.Model(x := keras.Input((4,)), keras.layers.Dense(2)(x), name="new"),
        NEEDED + "'new', a model of Keras 3",
    ),
}


TAKEN_BY_QUANTIZE_MODEL = ("path", "keras 3", "keras 3 functional")


@pytest.mark.parametrize("function", [quantize_model, strip, integer_weights])
@pytest.mark.parametrize("kind", NOT_KERAS_2)
def test_no_tf_keras_model(function, kind):
    make, message = NOT_KERAS_2[kind]
    if function is quantize_model and kind in TAKEN_BY_QUANTIZE_MODEL:
        return
    with pytest.raises(TypeError, match=f"{function.__name__} {message}"):
        function(make())


MODELS = {
    "subclassed": (Subclassed, r"subclassed 'mine', not built: call mine.build\(\(None, "),
    "subclassed and built": (
        lambda: built(Subclassed()),
        r"subclassed 'mine', whose call .* make a tf_keras.Model of inputs and outputs",
    ),
    "unbuilt": (
        lambda: tf_keras.Sequential([layers.Dense(2)], name="bare"),
        r"needs a built model: call bare.build\(input_shape\) first",
    ),
    "no layers": (
        lambda: tf_keras.Sequential(name="bare"),
        "needs a model with layers. Received: 'bare', which is empty",
    ),
    "only an input": (
        lambda: functional(lambda x: x),
        "needs a model with a layer between its inputs and outputs. Received: 'functional' with 'input_",
    ),
    "quantized by tfmot": (
        lambda: tfmot_quantize.quantize_model(small_model()),
        "float model. Received: 'small', quantized or annotated by tfmot itself in 'quantize_layer.*', 'q.*Pass",
    ),
    "annotated for tfmot": (
        lambda: tfmot_quantize.quantize_annotate_model(small_model()),
        "quantized or annotated by tfmot itself in 'quantize_annotate",
    ),
    "operators": (
        lambda: functional(lambda x: layers.Dense(2)(tf.sin(x) * 2 + 1)),
        r"1 layer of 'functional' cannot be quantized:\n  'tf.math.sin.*' \(tf.math.sin\): no rule for the operator",
    ),
    "float64": (
        lambda: small_model(dtype="float64"),
        r"'conv' \(Conv2D\): computes in float64; build it with dtype='float32'",
    ),
    "nan": (
        lambda: with_weight(np.nan),
        "needs finite weights. Received: 'small' with NaN or infinity in 'conv/kernel:0': its training diverged; load",
    ),
    "infinite bias": (lambda: with_weight(-np.inf, "logits", 1), "with NaN or infinity in 'logits/bias:0'"),
}


@pytest.mark.parametrize(("make", "message"), MODELS.values(), ids=MODELS)
def test_models_that_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        quantize_model(make())


@pytest.mark.parametrize("function", [strip, integer_weights])
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (small_model, "a float model"),
        (lambda: tfmot_quantize.quantize_model(small_model()), "quantized by tfmot itself"),
    ],
    ids=["float", "quantized by tfmot"],
)
def test_no_quantized_model(function, make, kind):
    message = f"^{function.__name__} needs a model that satkeras.quantize_model returned. Received: 'small', {kind}"
    with pytest.raises(ValueError, match=message):
        function(make())


@pytest.mark.parametrize("argument", ["weight_bits", "activation_bits"])
@pytest.mark.parametrize("bits", [1, 9, 0, -4], ids=str)
def test_bits_out_of_range(argument, bits):
    message = f"^{argument}={bits}: .*Quantizer works with 2 to 8 bits. Received: num_bits={bits}"
    with pytest.raises(ValueError, match=message):
        quantize_model(small_model(), **{argument: bits})
    with pytest.raises(ValueError, match=f"The override of 'c.*': {argument}={bits}: .* works with 2 to 8 bits"):
        quantize_model(small_model(), overrides={"c*": {argument: bits}})


@pytest.mark.parametrize("argument", ["weight_bits", "activation_bits"])
@pytest.mark.parametrize("bits", [True, False, 4.0, "4", [4], np.float32(4), np.bool_(True)], ids=repr)
def test_bits_that_are_no_integers(argument, bits):
    with pytest.raises(TypeError, match=rf"^{argument}=.*: .*Quantizer needs an integer num_bits or None"):
        quantize_model(small_model(), **{argument: bits})


@pytest.mark.parametrize("bits", [np.int32(5), np.int64(5), np.uint8(5)], ids=repr)
def test_integers_of_numpy_are_taken(bits, tmp_path):
    model = quantize_model(
        small_model(), weight_bits=bits, activation_bits=bits, overrides={"*": {"weight_bits": bits}}
    )
    config = model.get_layer("quant_conv").quantize_config.quantizer.get_config()
    assert type(config["num_bits"]) is int
    assert config["num_bits"] == 5
    model.save(tmp_path / "model.h5")


# None means full precision. Both: SAT's first stage, to be quantized again. One alone: to see what it costs; no file.
WIDTHS = {
    "both": (dict(weight_bits=None, activation_bits=None), None, []),
    "weights only": (dict(activation_bits=None), 8, []),
    "activations only": (dict(weight_bits=None), None, [8, 8, 8]),
    "of one layer": (dict(overrides={"conv": {"weight_bits": None}}), None, [8, 8, 8]),
}


@pytest.mark.parametrize(("options", "conv", "tensors"), WIDTHS.values(), ids=WIDTHS)
def test_where_none_is_allowed(options, conv, tensors):
    model = quantize_model(small_model(), **options)
    bits = {x.name: x.quantize_config.quantizer.num_bits for x in model.layers if hasattr(x, "quantize_config")}
    assert bits["quant_conv"] == conv
    assert [width for name, width in bits.items() if name.endswith("_output")] == tensors


KNOWN = rf"must be one of {re.escape(str(sorted(SCHEMES)))} or a satkeras.Scheme. Received: "


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"scheme": "xnor"}, ValueError, f"scheme {KNOWN}scheme='xnor'"),
        ({"scheme": "SAT"}, ValueError, f"scheme {KNOWN}scheme='SAT'"),
        ({"scheme": ""}, ValueError, f"scheme {KNOWN}scheme=''"),
        ({"scheme": None}, TypeError, "scheme must be a name or a satkeras.Scheme. Received: scheme=None"),
        ({"scheme": Scheme}, TypeError, "scheme must be a name or a satkeras.Scheme. Received: scheme=<class"),
        (
            {"input_range": (1, 0)},
            ValueError,
            r"input_range must be \(low, high\) with low <= 0 <= high. Received: \(1.0",
        ),
        ({"input_range": (0, np.nan)}, ValueError, r"low <= 0 <= high. Received: \(0.0, nan\)"),
        ({"input_range": (0, 0)}, ValueError, r"low <= 0 <= high. Received: \(0.0, 0.0\)"),
        (
            {"input_range": 255},
            TypeError,
            "input_range must be two numbers, the real values of .* Received: input_range=255",
        ),
        ({"input_range": None}, TypeError, "input_range must be two numbers"),
        ({"input_range": (0, 1, 2)}, TypeError, r"must be two numbers.*Received: input_range=\(0, 1, 2\)"),
        ({"input_range": (255,)}, TypeError, r"must be two numbers.*Received: input_range=\(255,\)"),
        ({"input_range": "01"}, TypeError, "must be two numbers.*Received: input_range='01'"),
        ({"input_range": ((0, 1), (0, 1))}, TypeError, "must be two numbers"),
    ],
    ids=str,
)
def test_arguments_that_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        quantize_model(small_model(), **arguments)


MATCHES = "must match a convolution or dense layer. Received: "


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        ({"cnov": "int8"}, ValueError, MATCHES + r"'cnov', which matches none of \['conv', 'logits'\]"),
        ({"flat*": "int8"}, ValueError, MATCHES + "'flat"),
        ({"quant_conv": "int8"}, ValueError, MATCHES + "'quant_conv'"),
        (
            {"conv": {"bits": 3}},
            ValueError,
            r"override of 'conv': .* weight_bits, activation_bits or both. Received: {'b",
        ),
        ({"conv": {}}, ValueError, "override of 'conv': a mapping must hold weight_bits, activation_bits or both"),
        ({"conv": "xnor"}, ValueError, f"override of 'conv': scheme {KNOWN}scheme='xnor'"),
        ({"conv": 4}, TypeError, "override of 'conv': scheme must be a name or a satkeras.Scheme. Received: scheme=4"),
        (
            {"conv": {"weight_bits": True}},
            TypeError,
            "override of 'conv': weight_bits=True: .* needs an integer num_bits",
        ),
        ({3: "int8"}, TypeError, "overrides must be a mapping from layer names or patterns.*Received: overrides={3:"),
        (["conv"], TypeError, r"overrides must be a mapping from layer names.*Received: overrides=\['conv'\]"),
        ("conv", TypeError, "overrides must be a mapping from layer names.*Received: overrides='conv'"),
    ],
    ids=str,
)
def test_overrides_that_are_refused(overrides, error, message):
    with pytest.raises(error, match=message):
        quantize_model(small_model(), overrides=overrides)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"weights": "dorefa"}, TypeError, "weights must be one of satkeras.quantizers. Received: weights='dorefa'"),
        ({"streams": PACTQuantizer}, TypeError, "streams must be one of satkeras.quantizers. Received: streams=<class"),
        ({"first_layer_bits": 9}, ValueError, "^first_layer_bits=9: .* works with 2 to 8 bits"),
        ({"last_layer_bits": 4.0}, TypeError, "^last_layer_bits=4.0: .* needs an integer num_bits"),
    ],
    ids=str,
)
def test_schemes_that_are_refused(fields, error, message):
    with pytest.raises(error, match=message):
        dataclasses.replace(SCHEMES["sat"], **fields)


def test_data_in_other_units_stop_the_training():
    model = quantize_model(small_model())
    model.compile("sgd", "mse")
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"pass the range of your images to quantize_model"):
        model.fit(np.random.default_rng(0).uniform(0, 1, (4, 8, 8, 3)), np.zeros((4, 5)), verbose=0)
