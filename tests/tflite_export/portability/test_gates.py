"""Tests of gates: every product that a chosen gate can make, under every rule; and whole models with gates."""

import hypothesis
import numpy as np
import pytest
import tf_keras
from hypothesis import strategies as st
from tf_keras import layers

import satkeras
import tflite_export
from satkeras.models.chosen_levels import ChosenLevels
from tflite_export.lowering.lower import make_plan
from tflite_export.operators import Lookup, Multiply, MultiplyConstant
from tflite_export.plan import Plan, Tensor
from tflite_export.portability.gates import gate_of, portable_gate, with_gate
from tflite_export.portability.occurring import occurring_together
from tflite_export.portability.plans import clamp_levels, evidence, prove
from tflite_export.portability.rounding_rules import Scales, levels_under_all_rules
from tflite_export.portability.tables import with_tables
from tflite_export.verification.interpreter import RESOLVERS, open_interpreter, run


def tensor(name: str, scale: float, zero_point: int, lowest: int = -128) -> Tensor:
    return Tensor(name, (4,), np.float32(scale), zero_point, float(np.float32(scale)), lowest)


@hypothesis.given(
    x=st.tuples(st.floats(0.01, 0.1), st.sampled_from([-128, 0, 7])),
    place=st.sampled_from([0, 1]),
    narrow=st.booleans(),
    share=st.floats(0.2, 1.0),
    signed=st.booleans(),
)
@hypothesis.settings(max_examples=15)
def test_no_rule_parts_on_any_product_of_a_chosen_gate(x, place, narrow, share, signed):
    scale, zero_point = x
    other = tensor("x", scale, 112, 112) if narrow else tensor("x", scale, zero_point)
    gate = tensor("gate", 1 / 256, -128)
    output = tensor("y", share * (15 if narrow else 255) * scale / 255, 0 if signed else -128)
    inputs = (gate, other) if place == 0 else (other, gate)
    operator = Multiply(inputs, output, activation="none")
    choice = portable_gate(operator, place)
    assert choice is not None
    chosen = with_gate(operator, choice)
    left, right = (one.codes - one.zero_point for one in chosen.inputs)
    scales = Scales(chosen.inputs[0].scale, chosen.inputs[1].scale, output.scale, one_product=True)
    rules = levels_under_all_rules(np.multiply.outer(left, right), scales)
    assert np.ptp([np.clip(levels, *clamp_levels(output, "none")) for levels in rules], axis=0).max() == 0
    moved = (choice.codes - gate.zero_point) * choice.factor - np.arange(256)
    assert np.sqrt(np.mean(moved**2)) < 0.02 * 255
    assert choice.codes[0] == gate.zero_point  # a gate that is shut stays shut


def test_a_portable_product_needs_no_other_gate_than_the_nearest():
    # 1 / 256 of an output step: every tie is a multiple of 128, and only the gate's own integers decide.
    operator = Multiply((tensor("x", 1.0, 0), tensor("gate", 1 / 256, -128)), tensor("y", 1.0, 0), activation="none")
    assert evidence(operator)[1] is not None
    assert evidence(with_gate(operator, portable_gate(operator, 1)))[1] is None


def test_a_square_has_no_gate():
    x = tensor("x", 0.05, 0)
    assert portable_gate(Multiply((x, x), tensor("y", 0.1, 0), activation="none"), 1) is None


def hard_swish(step: float, output_step: float) -> Plan:
    """`x relu6(x + 3) / 6`, each factor on its own grid."""
    x = tensor("x", step, -10)
    gate = MultiplyConstant((x,), tensor("gate", 1 / 127, 0), 127, np.float32(0.3 / (127 * 127 * step)), 0, "relu")
    product = Multiply((x, gate.output), tensor("y", output_step, -100), activation="none", layers=("y",))
    return Plan((x,), (gate, product), (product.output,), ("x",), ("y",))


@hypothesis.given(step=st.floats(0.01, 0.1), share=st.floats(0.3, 1.0))
@hypothesis.settings(max_examples=15)
def test_a_gate_that_is_a_function_of_the_other_factor_keeps_its_integers(step, share):
    plan = hard_swish(step, share * step)
    gate, product = plan.operators
    occurring = occurring_together(plan)[product]
    assert len(occurring[0]) == 256 and gate_of(product, plan) == 1
    # NumPy's own: which integers stand at one place.
    codes = np.arange(-128, 128)
    gates = np.asarray(gate.compute([codes.astype(np.float32)], "xnnpack")).astype(int)
    assert {*zip(*occurring, strict=True)} == {*zip(codes, gates, strict=True)}
    choice = portable_gate(product, 1, occurring)
    assert choice is not None and (choice.codes == codes).all() and abs(choice.factor - 1) <= 0.03
    chosen = with_gate(product, choice)
    scales = Scales(chosen.inputs[0].scale, chosen.inputs[1].scale, product.output.scale, one_product=True)
    rules = levels_under_all_rules((codes + 10) * gates, scales)
    assert np.ptp([np.clip(levels, -28, 227) for levels in rules], axis=0).max() == 0


def test_inputs_that_are_no_functions_of_one_tensor_occur_in_all_pairs():
    x, other = tensor("x", 0.1, 0), tensor("other", 0.1, 0)
    product = Multiply((x, other), tensor("y", 0.2, 0), activation="none")
    assert product not in occurring_together(Plan((x, other), (product,), (product.output,), ("x", "o"), ("y",)))
    assert evidence(product)[0] == 256 * 256


def images(count: int = 30) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3)).astype(np.float32)


def gated(x, activation: str):
    """Squeeze and excite."""
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(4, 1, activation="relu")(gate)
    return layers.Multiply(name="gated")([x, layers.Conv2D(8, 1, activation=activation)(gate)])


def hard_sigmoid(x):
    return layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)


ACTIVATIONS = {
    "EfficientNet": lambda x: layers.Activation("swish")(x),
    "MobileNetV3": lambda x: layers.Multiply()([x, hard_sigmoid(x)]),
    "ReLU": lambda x: layers.ReLU()(x),
}


def network(kind: str) -> tf_keras.Model:
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same", use_bias=False)(image))
    x = gated(ACTIVATIONS[kind](x), "sigmoid" if kind == "EfficientNet" else "hard_sigmoid")
    return tf_keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(layers.Conv2D(8, 1)(x))))


@pytest.mark.parametrize(("kind", "bits"), [("EfficientNet", 8), ("MobileNetV3", 4), ("ReLU", 4)])
def test_a_model_with_gates_is_portable(kind, bits, tmp_path):
    model = satkeras.quantize_model(network(kind), weight_bits=bits, activation_bits=bits, calibration_data=images())
    assert not prove(with_tables(make_plan(model))).whole
    copy = tflite_export.portable_model(model)
    path = tmp_path / "p.tflite"
    report = tflite_export.export_tflite(copy, path, verify_data=images(), portable=True)
    assert report.portability.whole and report.portability.gates >= 1
    chosen = {layer.name: layer for layer in copy.layers if isinstance(layer, ChosenLevels)}
    tables = [one.output.layer for one in make_plan(copy).operators if isinstance(one, Lookup)]
    # A swish or hard-swish keeps its gate's integers, which costs no operator; a gate of channels has a table.
    kept = {name for name, layer in chosen.items() if layer.keeps_integers}
    assert set(chosen) - kept <= set(tables)
    if kind == "MobileNetV3":
        assert kept and not kept & set(tables)
    assert report.verification.differing == 0
    codes = images().astype(np.uint8)
    first, *others = (run(open_interpreter(path.read_bytes(), kernels), codes)[0] for kernels in RESOLVERS)
    assert all(np.array_equal(first, other) for other in others)
    satkeras.save_model(copy, tmp_path / "m.keras")
    loaded = satkeras.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.predict(images(), verbose=0), copy.predict(images(), verbose=0))
    again = tflite_export.portable_model(copy)
    assert [layer.name for layer in again.layers] == [layer.name for layer in copy.layers]
    assert prove(with_tables(make_plan(again))) == report.portability
    assert not any(isinstance(layer, ChosenLevels) for layer in satkeras.strip(copy).layers)
