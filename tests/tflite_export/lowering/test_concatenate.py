"""Tests of Concatenate's rule: one grid for all inputs, each brought there by a MUL where it is on another."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import satkeras
from satkeras.models.quantize_configs import OutputQuantizeConfig
from satkeras.models.wrapper import QuantizeWrapper
from satkeras.quantizers import InputQuantizer, PACTQuantizer
from tflite_export.file.writer import write_file
from tflite_export.lowering.lower import make_plan
from tflite_export.operators import Add, Concatenation, Maximum, MultiplyConstant
from tflite_export.verification.interpreter import open_interpreter, run
from tflite_export.verification.twin import build_twin
from tflite_export.verification.verify import breaches, verify


def quantized(x, name: str, quantizer):
    return QuantizeWrapper(layers.Activation("linear", name=name), OutputQuantizeConfig(quantizer))(x)


def model_of(clips, joined: float, axis=-1, bits=8, signed=False, relu=False) -> tf_keras.Model:
    """A quantized model that joins branches of these clip values and stores the result with its own."""
    image = layers.Input((4, 4, 3), name="image")
    x = quantized(image, "codes", InputQuantizer(-128.0, 127.0))
    branches = [
        quantized(x, f"branch_{i}", PACTQuantizer(8, signed=True, initial_alpha=clip)) for i, clip in enumerate(clips)
    ]
    x = layers.Concatenate(axis, name="join")(branches)
    if relu:
        x = layers.ReLU(name="relu")(x)
    return tf_keras.Model(image, quantized(x, "joined", PACTQuantizer(bits, signed=signed, initial_alpha=joined)))


IMAGES = np.random.default_rng(0).integers(-128, 128, (4, 4, 4, 3)).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_sums_whose_scales_were_moved_are_brought_to_one_grid(seed):
    tf_keras.utils.set_random_seed(seed)
    image = layers.Input((8, 8, 3))
    one, other, third, fourth = (layers.Conv2D(4, 3, padding="same")(image) for _ in range(4))
    x = layers.Concatenate()([layers.Add()([one, other]), layers.Add()([third, fourth])])
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3)).astype(np.float32)
    model = satkeras.quantize_model(tf_keras.Model(image, layers.Conv2D(2, 1)(x)), calibration_data=images)
    plan = make_plan(model)
    (join,) = (operator for operator in plan.operators if isinstance(operator, Concatenation))
    assert {x.scale for x in join.inputs} == {join.output.scale}
    moved = [one.output.scale for one in plan.operators if isinstance(one, Add)]
    assert any(scale != join.output.scale for scale in moved), "otherwise this tests nothing"
    for kernels in ("xnnpack", "reference"):
        assert breaches(verify(model, plan, write_file(plan), [images], kernels)) == []


@pytest.mark.parametrize("axis", [-1, 1, 2, 3])
@pytest.mark.parametrize("bits, signed, relu", [(8, True, False), (8, False, True), (4, True, False), (4, False, True)])
def test_the_file_is_the_training_model(axis, bits, signed, relu):
    model = model_of([127.0, 60.0, 90.0], 97.3, axis, bits, signed, relu)
    plan = make_plan(model)
    # An output that a caller reads is not stored in units of its clip value: a MAXIMUM clips it below.
    last = [Concatenation, Maximum] if bits < 8 and signed else [Concatenation]
    assert [type(operator) for operator in plan.operators[-3 - len(last) :]] == [MultiplyConstant] * 3 + last
    for kernels in ("xnnpack", "reference"):
        verification = verify(model, plan, write_file(plan), [IMAGES], kernels)
        assert breaches(verification) == []
        assert verification.tensors[-1].layer_differs == 0


def test_an_input_on_the_grid_of_the_output_is_joined_as_it_is():
    plan = make_plan(model_of([100.0, 60.0], 100.0, signed=True))
    *_, multiply, join = plan.operators
    assert isinstance(multiply, MultiplyConstant) and isinstance(join, Concatenation)
    first, second = join.inputs
    assert first.layer == "quant_branch_0" and second is multiply.output
    assert {(x.scale, x.zero_point) for x in join.inputs} == {(join.output.scale, join.output.zero_point)}


def test_more_inputs_than_xnnpack_joins():
    plan = make_plan(model_of([100.0] * 6, 100.0, signed=True))
    assert isinstance(plan.operators[-1], Concatenation) and not plan.operators[-1].runs_in_xnnpack
    codes = (IMAGES + 128).astype(np.uint8)
    (found,) = run(open_interpreter(write_file(plan)), codes)
    np.testing.assert_array_equal(found, build_twin(plan)(codes))
