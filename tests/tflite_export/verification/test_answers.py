"""What a network answers."""

import numpy as np
import pytest

from tflite_export.plan import Tensor
from tflite_export.verification.answers import Answers


def output(shape, scale=0.5, zero_point=0):
    return Tensor("logits", shape, np.float32(scale), zero_point, scale)


def test_the_largest_of_several_outputs():
    answers = Answers(output((3,)), np.array([2, 0]))
    answers.add("file", np.array([[1, 2, 3]]))
    answers.add("file", np.array([[1, 2, 3]]))
    answers.add("model", np.array([[0.1, 0.2, 0.9]]), real=True)
    answers.add("model", np.array([[0.1, 0.7, 0.2]]), real=True)
    assert answers.agreement("file", "model") == 0.5
    assert (answers.accuracy("file"), answers.accuracy("model")) == (0.5, 0.5)
    assert answers.kind == "largest output"


def test_a_single_logit_answers_by_its_sign():
    answers = Answers(output((1,), zero_point=-3), None)
    answers.add("file", np.array([[-4], [-3], [-2]]))
    answers.add("model", np.array([[-0.4], [-0.1], [0.3]]), real=True)
    assert answers.agreement("file", "model") == 1
    answers.add("other", np.array([[0.4], [-0.1], [0.3]]), real=True)
    assert answers.agreement("file", "other") == pytest.approx(2 / 3)
    assert answers.accuracy("file") is None


def test_a_single_probability_answers_by_one_half():
    answers = Answers(output((1,), 1 / 256, -128), np.array([[0], [1]]))
    answers.add("file", np.array([[-10], [10]]))
    assert answers.accuracy("file") == 1
    assert answers.kind == "side of the threshold 0.5"
