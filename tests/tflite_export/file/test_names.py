"""The names of a file: those of Keras' layers, inputs and outputs, in the model's order."""

import re

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import satkeras
from tests.tflite_export.file.reading import entries, names, read
from tflite_export.file.reader import check_file
from tflite_export.file.writer import write_file
from tflite_export.lowering.lower import make_plan
from tflite_export.verification.interpreter import open_interpreter


@pytest.fixture(scope="module", params=["uint8", "float32"])
def model(plan, request):
    return read(write_file(plan, request.param, request.param))


def test_tensors_have_the_names_of_keras_layers(model, residual):
    found = names(model)
    assert len(set(found)) == len(found)
    assert names(model, model.subgraphs[0].inputs) == residual.input_names == ["image"]
    assert names(model, model.subgraphs[0].outputs) == residual.output_names == ["logits"]
    layer_names = {layer.name.removeprefix("quant_") for layer in residual.layers}
    written = names(model, [index for operator in model.subgraphs[0].operators for index in operator.outputs])
    for name in written:
        assert re.sub(r"(_\d+)?(/.*)?$", "", name) in layer_names, name
    # A kernel is found under its layer's name.
    for layer in ("stem", "depthwise", "project", "down"):
        assert {f"{layer}/kernel", f"{layer}/bias"} <= set(found)


def test_the_signature_is_the_subgraph(model, residual):
    (signature,) = model.signatureDefs
    assert signature.signatureKey == b"serving_default"
    assert signature.subgraphIndex == 0
    graph = model.subgraphs[0]
    assert entries(signature.inputs) == list(zip(residual.input_names, graph.inputs, strict=True))
    assert entries(signature.outputs) == list(zip(residual.output_names, graph.outputs, strict=True))


def two_and_three() -> tuple[list, list]:
    """Inputs and outputs of equal shapes, whose names are in no alphabetical order."""
    left, right = (tf_keras.Input((4, 4, 2), name=name) for name in ("second", "first"))
    x = layers.Add(name="sum")([layers.Conv2D(3, 1, activation="relu", name=f"c_{x.name}")(x) for x in (left, right)])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return [left, right], [layers.Dense(3, name=name)(x) for name in ("zeta", "alpha", "mid")]


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_inputs_and_outputs_are_told_apart_by_order_and_by_name(kind, trained):
    inputs, outputs = two_and_three()
    if kind == "dict":
        inputs = {"x_right": inputs[1], "a_left": inputs[0]}
        outputs = dict(zip(("one", "two", "three"), outputs, strict=True))
    images = [np.random.default_rng(seed).integers(0, 256, (8, 4, 4, 2)).astype(np.float32) for seed in (0, 1)]
    fed = {"list": ["second", "first"], "dict": ["a_left", "x_right"]}[kind]
    named = dict(zip(fed, images, strict=True)) if kind == "dict" else images
    quantized = satkeras.quantize_model(tf_keras.Model(inputs, outputs), calibration_data=named)
    plan = make_plan(quantized)
    for types in (("int8", "int8"), ("uint8", "float32")):
        content = write_file(plan, *types)
        model = read(content)
        graph, (signature,) = model.subgraphs[0], model.signatureDefs
        assert names(model, graph.inputs) == fed
        assert entries(signature.inputs) == list(zip(fed, graph.inputs, strict=True))
        wanted = {"list": ["zeta", "alpha", "mid"], "dict": ["one", "three", "two"]}[kind]
        assert names(model, graph.outputs) == wanted
        assert entries(signature.outputs) == list(zip(wanted, graph.outputs, strict=True))
        assert len(set(names(model))) == len(names(model))
    # A caller by name gets the head that it asks for: the training model's levels.
    signature = open_interpreter(content).get_signature_runner("serving_default")
    found = signature(**dict(zip(fed, (image[:1].astype(np.uint8) for image in images), strict=True)))
    predicted = quantized.predict({n: x[:1] for n, x in named.items()} if kind == "dict" else [x[:1] for x in images])
    predicted = predicted if kind == "dict" else dict(zip(("zeta", "alpha", "mid"), predicted, strict=True))
    assert set(found) == set(predicted)
    for y, name in zip(plan.outputs, names(model, graph.outputs), strict=True):
        np.testing.assert_array_equal(np.rint(found[name] / y.step), np.rint(predicted[name] / y.step), name)


def test_several_calls_and_equal_names_stay_apart():
    """A layer called twice, an output called as an input, layers called as other layers' constants."""
    image = tf_keras.Input((4, 4, 2), name="image")
    shared = layers.Conv2D(2, 1, activation="relu", name="shared")
    x = layers.Conv2D(2, 1, activation="relu", name="shared/kernel")(shared(shared(image)))
    x = layers.Conv2D(2, 1, name="image/int8")(x)
    data = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 2)).astype(np.float32)
    model = tf_keras.Model({"x": image}, {"x": x, "y": shared(x)})
    quantized = satkeras.quantize_model(model, calibration_data={"x": data})
    plan = make_plan(quantized)
    content = write_file(plan)
    check_file(plan, content, "uint8", "int8")
    model = read(content)
    found = names(model)
    assert len(set(found)) == len(found), found
    (signature,) = model.signatureDefs
    assert [name for name, _ in entries(signature.inputs)] == ["x"]
    assert [name for name, _ in entries(signature.outputs)] == ["x", "y"]


# Equal things, which a converter would merge, and tensors that end in several places.
