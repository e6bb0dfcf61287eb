"""Quantization Networks in the file: weights on integer levels, activations by step operators."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import satkeras
from satkeras.training.phases import freeze, set_phase, set_thresholds
from tflite_export import ExportError
from tflite_export.file.writer import write_file
from tflite_export.lowering.lower import make_plan
from tflite_export.operators import Add, AddConstant
from tflite_export.verification.interpreter import open_interpreter, run
from tflite_export.verification.twin import build_twin
from tflite_export.verification.verify import verify


def network():
    image = layers.Input((12, 12, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(image)
    stream = layers.ReLU(name="stem_relu")(layers.BatchNormalization(momentum=0.5, name="stem_bn")(x))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="a")(stream)
    x = layers.ReLU(name="a_relu")(layers.BatchNormalization(momentum=0.5, name="a_bn")(x))
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.DepthwiseConv2D(3, use_bias=False, name="b")(x)
    x = layers.ReLU(name="b_relu")(layers.BatchNormalization(momentum=0.5, name="b_bn")(x))
    x = layers.Dense(12, activation="relu", name="hidden")(layers.Flatten(name="flat")(x))
    return tf_keras.Model(image, layers.Dense(5, name="logits")(x))


@pytest.fixture(scope="session")
def quantized(random_images):
    """A function for the network, calibrated, its thresholds set."""

    def quantized(weight_bits, activation_bits):
        float_model = network()
        images = random_images(float_model, 16)
        widths = {"weight_bits": weight_bits, "activation_bits": activation_bits}
        model = satkeras.quantize_model(float_model, "qn", **widths, calibration_data=images)
        set_thresholds(model, images)
        return model

    return quantized


@pytest.fixture(scope="session")
def model(quantized):
    """Weights -4 .. 4 and 2-bit activations."""
    return quantized("3bit+-4", 2)


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    ("weight_bits", "activation_bits", "steps"), [(1, 8, 0), ("ternary", 1, 1), ("3bit+-2", 3, 7), (5, 4, 15)]
)
def test_every_integer_is_the_twins(weight_bits, activation_bits, steps, quantized, random_images):
    model = quantized(weight_bits, activation_bits)
    plan = make_plan(model)
    found = verify(model, plan, write_file(plan), random_images(model, 4))
    assert found.differing == 0
    assert found.worst_layer_share == 0
    assert len([op for op in plan.operators if isinstance(op, AddConstant)]) == 3 * steps
    assert len([op for op in plan.operators if isinstance(op, Add)]) == 3 * max(steps - 1, 0)
    thresholds = [op.output.name for op in plan.operators if isinstance(op, AddConstant) and op.output.name[0] == "a"]
    names = [f"a_input/threshold_{place}" for place in range(1, steps + 1)]
    assert thresholds == (["a_input"] if steps == 1 else names)


@pytest.mark.parametrize("kernels", ["xnnpack", "reference"])
def test_steps_are_exact_on_all_kernels(kernels, model, random_images):
    plan = make_plan(model)
    found = verify(model, plan, write_file(plan), random_images(model, 2), kernels)
    steps = [one for one in found.tensors if one.name.startswith("a_input")]
    assert len(steps) == 5
    assert found.differing == 0


def test_the_operators_are_the_quantizer_on_every_code(model):
    """All 256 codes, also where thresholds lie on a code, coincide, or are out of reach."""
    wrapper = model.get_layer("quant_a_input")
    variables, quantizer = wrapper._output_quantizer_vars, wrapper.quantize_config.quantizer
    kept = {name: variable.numpy() for name, variable in variables.items()}
    step = float(model.get_layer("quant_stem_relu_output")._output_quantizer_vars["range"]) / 255
    for places in ([3, 77.3, 200.8], [-5, 0, 255], [9.5, 9.6, 9.4], [255.5, 300, 1e6]):
        quantizer.move_thresholds(np.array(places) * step, variables)
        plan = make_plan(model)
        (output,) = (op for op in plan.operators if op.output.name == "a_input")
        twin = build_twin(plan)
        source = twin.get_layer("stem_relu").output
        codes = np.arange(-128, 128, dtype=np.float32)[:, None, None, None] * np.ones((12, 12, 8), np.float32)
        found = tf_keras.Model(source, twin.get_layer("a_input").output)(codes).numpy()
        real = (np.float32(step) * (codes + 128)).astype(np.float32)
        expected = np.rint(wrapper(real, training=False).numpy() / output.output.step) + output.output.zero_point
        np.testing.assert_array_equal(found, expected)
    for name, value in kept.items():
        variables[name].assign(value)


def test_freezing_changes_no_integer_of_the_file(quantized, random_images):
    model = quantized("ternary", 2)
    images = random_images(model, 4)
    codes = [values.astype(np.uint8) for values in images]
    before = run(open_interpreter(write_file(make_plan(model))), *codes)
    freeze(model)
    np.testing.assert_array_equal(run(open_interpreter(write_file(make_plan(model))), *codes), before)


def test_unfinished_models_are_refused(model, random_images):
    with pytest.raises(ExportError, match="quant_a_input: its thresholds are still unknown"):
        make_plan(satkeras.quantize_model(network(), "qn"))
    set_phase(model, "weights")
    with pytest.raises(ExportError, match=r"quant_a_input: it is switched off: call satkeras.set_phase"):
        make_plan(model)
    set_phase(model, "both")


def test_thresholds_beyond_every_code_are_no_problem(quantized, random_images):
    """They make equal operators of equal constants, which nothing may merge or refuse."""
    model = quantized("ternary", 3)
    wrapper = model.get_layer("quant_a_input")
    variables, quantizer = wrapper._output_quantizer_vars, wrapper.quantize_config.quantizer
    top = float(model.get_layer("quant_stem_relu_output")._output_quantizer_vars["range"])
    quantizer.move_thresholds(top * np.array([0.2, 0.4, 2.0, 2.0, 3.0, 3.0, 3.0]), variables)
    plan = make_plan(model)
    assert len([op for op in plan.operators if op.output.name.startswith("a_input")]) == 7 + 6
    assert verify(model, plan, write_file(plan), random_images(model, 4)).differing == 0
