"""Tests of the comparisons: they find no difference where there is none, and those that are put in."""

import dataclasses

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

import satkeras
from tflite_export.file.reader import read_model
from tflite_export.file.writer import write_file
from tflite_export.lowering.lower import make_plan
from tflite_export.operators import Add, LinearOperator
from tflite_export.verification.answers import Answers
from tflite_export.verification.interpreter import expose, open_interpreter, run
from tflite_export.verification.kernels import kernel_problems
from tflite_export.verification.verify import breaches, input_codes, random_images, verify

IMAGES = 60


@pytest.fixture(scope="module")
def images(residual):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (IMAGES, *x.shape[1:])).astype(np.float32) for x in residual.inputs]


@pytest.fixture(scope="module")
def verification(residual, plan, content, images):
    return verify(residual, plan, content, images)


def test_the_twin_is_the_file(verification):
    assert verification.differing == 0
    assert verification.first_divergence is None
    assert all(tensor.file_largest == 0 for tensor in verification.tensors)
    assert verification.twin_top1_agreement == 1.0
    assert breaches(verification) == []


def test_every_element_was_compared(verification, plan):
    compared = {tensor.name: tensor.elements for tensor in verification.tensors}
    assert compared == {op.output.name: IMAGES * np.prod(op.output.shape) for op in plan.operators}


def test_each_layer_is_the_training_models(verification, plan):
    """On the same input: all but the ties of float32 against integers. Every layer is compared somewhere."""
    large = [tensor for tensor in verification.tensors if tensor.elements >= 50_000]
    assert len(large) >= 3
    for tensor in large:
        assert tensor.layer_differs / tensor.elements <= 1e-4, tensor.name
    for tensor in verification.tensors:
        assert tensor.layer_beyond == 0
        assert tensor.layer_differs is None or tensor.layer_farthest <= 0.5 + tensor.layer_bound <= 0.75
    covered = {name.removeprefix("quant_") for operator in plan.operators for name in operator.layers}
    assert {"stem", "stem_bn", "stem_relu", "depthwise", "project", "add", "pad", "down", "max_pool", "mean"} <= covered


def test_the_end_to_end_figures(verification, residual, content, images):
    (levels,) = run(open_interpreter(content), images[0].astype(np.uint8))
    agreement = np.mean(levels.argmax(-1) == residual.predict(images[0], verbose=0).argmax(-1))
    assert verification.images == IMAGES
    assert verification.top1_agreement == pytest.approx(agreement)
    assert verification.top1_agreement > 0.9


def test_reference_kernels_have_a_twin_of_their_own(residual, plan, content, images):
    found = verify(residual, plan, content, [images[0][:4]], "reference", families=("tflm",))
    assert found.kernels == "reference"
    assert breaches(found) == []
    assert [family.kernels for family in found.families] == ["reference", "tflm"]


def changed(plan, place: int, **changes):
    """The plan with one operator changed; its tensors are the same, so that the two can be compared."""
    operators = list(plan.operators)
    operators[place] = dataclasses.replace(operators[place], **changes)
    return dataclasses.replace(plan, operators=tuple(operators))


def third_sum(plan) -> int:
    return [place for place, op in enumerate(plan.operators) if isinstance(op, LinearOperator)][2]


def test_a_file_that_is_not_its_plan(residual, plan, images):
    """A file with other weights in its third sum, which hides behind the true file's plan."""
    place = third_sum(plan)
    operator = plan.operators[place]
    # In every channel: some are dead, others saturated.
    false_file = write_file(changed(plan, place, weights=-np.abs(operator.weights)))
    found = verify(residual, plan, false_file, [images[0][:4]])
    assert found.first_divergence == operator.output.name
    assert found.differing > 0
    assert str(found).count(found.first_divergence) >= 2
    name, reason = breaches(found)[0]
    assert name == operator.output.name
    assert "integers differ between the file, run by xnnpack kernels, and its integer twin" in reason
    problems = kernel_problems(residual, plan, read_model(false_file))
    assert [name for name, _ in problems] == [operator.name]


def test_a_plan_that_is_not_the_model(residual, plan, images):
    """Twin and file agree on wrong integers: the training model's layer and its kernel do not."""
    place = third_sum(plan)
    operator = plan.operators[place]
    false_plan = changed(plan, place, weights=np.roll(operator.weights, 1, axis=-1))
    false_file = write_file(false_plan)
    found = verify(residual, false_plan, false_file, [images[0][:4]])
    assert found.differing == 0
    ((name, reason),) = breaches(found)
    assert name == operator.output.name
    assert "are not the training model's: its layer, fed the same input, is up to" in reason
    ((name, reason),) = kernel_problems(residual, false_plan, read_model(false_file))
    assert name == operator.name
    assert "int8 steps from the training model's quantized kernel" in reason


@pytest.mark.parametrize("place", range(4))
def test_a_kernel_is_compared_by_its_last_step(residual, plan, place):
    sums = [at for at, op in enumerate(plan.operators) if isinstance(op, LinearOperator)]
    operator = plan.operators[sums[place]]
    weights = operator.weights.copy()
    weights.flat[-1] += 1 if weights.flat[-1] < 0 else -1
    bias = operator.bias + np.eye(1, len(operator.bias), dtype=np.int32)[0]
    scale = operator.weight_scale * np.float32(1.01)
    for changes in ({"weights": weights}, {"bias": bias}, {"weight_scale": scale}):
        content = write_file(changed(plan, sums[place], **changes))
        assert {name for name, _ in kernel_problems(residual, plan, read_model(content))} == {operator.name}
    assert kernel_problems(residual, plan, read_model(write_file(plan))) == []


def test_kernels_of_ones_are_compared_too():
    """Those of a batch norm without a layer before it, and of a mean with a grid of its own."""
    x = inputs = layers.Input((4, 4, 3))
    x = layers.Conv2D(4, 1)(layers.BatchNormalization(name="norm")(x))
    model = tf_keras.Model(inputs, layers.GlobalAveragePooling2D(name="mean")(x))
    model = satkeras.quantize_model(model, calibration_data=np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3)))
    plan = make_plan(model)
    assert kernel_problems(model, plan, read_model(write_file(plan))) == []
    places = [at for at, op in enumerate(plan.operators) if isinstance(op, LinearOperator)]
    norm, _, mean = places
    for place, name in ((norm, "norm"), (mean, "mean")):
        operator = plan.operators[place]
        assert operator.layers[0].endswith(name)
        weights = operator.weights.copy()
        weights.flat[-1] -= 1
        for changes in ({"weights": weights}, {"weight_scale": operator.weight_scale * np.float32(1.01)}):
            content = write_file(changed(plan, place, **changes))
            assert {found for found, _ in kernel_problems(model, plan, read_model(content))} == {operator.name}


def test_a_wrong_grid_between_layers(residual, plan, images):
    """A sum stored five percent too coarsely: its layer is beyond its bound, whatever twin and file say."""
    total = next(operator.output for operator in plan.operators if isinstance(operator, Add))
    coarse = {
        tensor: dataclasses.replace(tensor, scale=tensor.scale * np.float32(1.05))
        for tensor in plan.tensors
        if tensor.scale == total.scale
    }
    operators = [
        dataclasses.replace(
            operator,
            inputs=tuple(coarse.get(x, x) for x in operator.inputs),
            output=coarse.get(operator.output, operator.output),
            sources=tuple(coarse.get(x, x) for x in operator.sources),
        )
        for operator in plan.operators
    ]
    false_plan = dataclasses.replace(plan, operators=tuple(operators))
    found = verify(residual, false_plan, write_file(false_plan), [images[0][:4]])
    assert found.differing == 0
    assert total.name in [name for name, _ in breaches(found)]


def test_the_intermediate_tensors_are_those_of_the_file(plan, content, images):
    codes = images[0][:3].astype(np.uint8)
    levels = run(open_interpreter(expose(plan, content)), codes)
    assert [values.shape[1:] for values in levels] == [tensor.shape for tensor in plan.tensors]
    np.testing.assert_array_equal(levels[-1], run(open_interpreter(content), codes)[0])


def test_several_inputs_and_outputs(chain):
    left, right = layers.Input((6, 6, 3), name="z_left"), layers.Input((6, 6, 3), name="a_right")
    x = layers.Conv2D(4, 3, activation="relu")(left)
    y = layers.Conv2D(4, 3, activation="relu")(right)
    outputs = [layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.Add()([x, y]))), layers.Conv2D(2, 1)(y)]
    found = chain(tf_keras.Model([left, right], outputs))
    assert found.differing == 0
    assert found.twin_top1_agreement == 1.0


def test_codes_are_the_nearest_ones(plan):
    (x,) = plan.inputs
    values = np.full((1, *x.shape), 3.0)
    values[0, 0, 0] = [0.4, 254.6, 255.4]
    codes = input_codes(x, values)
    assert codes.dtype == np.uint8
    assert list(codes[0, 0, 0]) == [0, 255, 255]
    assert (codes[0, 1:] == 3).all()


def test_noise_spans_the_input(plan):
    (values,) = random_images(plan)
    (x,) = plan.inputs
    assert values.shape == (8, *x.shape)
    np.testing.assert_array_equal(random_images(plan)[0], values)
    assert set(np.unique(input_codes(x, values))) == set(range(256))


# What counts as an answer.


def test_the_largest_output_answers(plan):
    answers = Answers(plan.outputs[0], np.array([2, 0, 1]))
    answers.add("model", np.array([[0.0, 1.0, 2.0], [5.0, 1.0, 2.0]]), real=True)
    answers.add("model", np.array([[1.0, 0.0, 2.0]]), real=True)
    answers.add("file", np.array([[0, 1, 2], [5, 1, 2], [1, 3, 2]]))
    assert answers.kind == "largest output"
    assert answers.agreement("model", "file") == pytest.approx(2 / 3)
    assert (answers.accuracy("model"), answers.accuracy("file")) == (pytest.approx(2 / 3), 1.0)


def test_a_single_logit_answers_by_its_sign(trained, random_images):
    """The largest of one number says nothing; which side of its threshold it lies on does."""
    model = tf_keras.Sequential([layers.Input((6, 6, 3)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten()])
    model.add(layers.Dense(1, name="logit"))
    quantized = trained(model)
    images = random_images(quantized, 12)
    quantized.get_layer("quant_logit").layer.bias.assign([float(-np.median(quantized.predict(images, verbose=0)))])
    plan = make_plan(quantized)
    labels = (quantized.predict(images, verbose=0)[:, 0] > 0).astype(int)
    assert 0 < labels.sum() < len(labels)
    found = verify(quantized, plan, write_file(plan), images, labels=1 - labels)
    assert found.answer == "side of the threshold 0"
    assert found.model_accuracy == 0.0
    assert found.top1_agreement > 0.8
    found = verify(quantized, plan, write_file(plan), images, labels=labels)
    assert found.model_accuracy == 1.0
