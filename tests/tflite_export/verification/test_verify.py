"""Tests of the three-way comparison: it finds no difference where there is none, and those that are put in."""

import dataclasses

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

from tflite_export.file.convert import convert
from tflite_export.plan import LinearOperator
from tflite_export.verification.interpreter import expose, open_interpreter, run
from tflite_export.verification.verify import _File, input_codes, verify

IMAGES = 60


@pytest.fixture(scope="module")
def images(residual, random_images):
    return random_images(residual, IMAGES)


@pytest.fixture(scope="module")
def verification(residual, plan, content, images):
    return verify(residual, plan, content, images)


def test_the_twin_is_the_file(verification):
    assert verification.differing == 0
    assert verification.first_divergence is None
    assert all(tensor.file_largest == 0 for tensor in verification.tensors)
    assert verification.twin_top1_agreement == 1.0


def test_every_element_was_compared(verification, plan):
    compared = {tensor.name: tensor.elements for tensor in verification.tensors}
    expected = {op.output.name: IMAGES * np.prod(op.output.shape) for op in plan.operators if op.builtin != "RESHAPE"}
    assert compared == expected


def test_each_layer_is_the_training_models(verification):
    """On the same input: all but the ties of float32 against integers."""
    large = [tensor for tensor in verification.tensors if tensor.elements >= 50_000]
    assert len(large) >= 3
    for tensor in large:
        assert tensor.layer_differs / tensor.elements <= 1e-4, tensor.name
    assert all(tensor.layer_largest <= 1 for tensor in verification.tensors)


def test_the_end_to_end_figures(verification, residual, content, images):
    (levels,) = run(open_interpreter(content), images[0].astype(np.uint8))
    agreement = np.mean(levels.argmax(-1) == residual.predict(images[0], verbose=0).argmax(-1))
    assert verification.images == IMAGES
    assert verification.top1_agreement == pytest.approx(agreement)
    assert verification.top1_agreement > 0.9


@pytest.mark.parametrize("kernels", ["builtin", "reference"])
def test_other_kernels_round_twice(residual, plan, content, images, kernels):
    found = verify(residual, plan, content, [images[0][:4]], kernels)
    assert found.kernels == kernels
    assert all(tensor.file_largest <= 1 for tensor in found.tensors[:1])


def changed(plan, place: int):
    """The plan with the weights of one operator changed; the same tensors, so that the two can be compared."""
    operators = list(plan.operators)
    operator = operators[place]
    weights = -np.abs(operator.weights)  # in every channel: some are dead, others saturated
    operators[place] = dataclasses.replace(operator, weights=weights)
    return dataclasses.replace(plan, operators=tuple(operators))


def test_the_first_divergence_is_named(residual, plan, images, monkeypatch):
    """A file with other weights in its third weighted operator, which hides behind the true file's plan."""
    places = [place for place, op in enumerate(plan.operators) if isinstance(op, LinearOperator)]
    tampered = changed(plan, places[2])
    false_file = _File(tampered, convert(tampered), "default")
    # The operators of the two plans stand for each other.
    counterpart = dict(zip(tampered.operators, plan.operators, strict=True))
    false_file.operators = [counterpart[operator] for operator in false_file.operators]
    monkeypatch.setattr("tflite_export.verification.verify._File", lambda *_: false_file)
    found = verify(residual, plan, b"", [images[0][:4]])
    assert found.first_divergence == plan.operators[places[2]].output.name
    assert found.differing > 0
    assert str(found).count(found.first_divergence) >= 2


def test_the_intermediate_tensors_are_those_of_the_file(plan, content, images):
    exposed, operators = expose(plan, content)
    assert operators == [op for op in plan.operators if op.builtin != "RESHAPE"]
    codes = images[0][:3].astype(np.uint8)
    levels = run(open_interpreter(exposed), codes)
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
