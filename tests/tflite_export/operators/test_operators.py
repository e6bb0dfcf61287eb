"""Tests of all operator classes, found by walking the subclasses: a new one is asked for its sample by itself."""

import importlib
import inspect
import pathlib
import pkgutil

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from benchmarks import judges
from tests.tflite_export.operators.agreement import Sample, is_delegated, plan_of, random_values
from tests.tflite_export.operators.drawing import seeds
from tflite_export import operators
from tflite_export.file.writer import write_file
from tflite_export.plan import KERNELS, Operator
from tflite_export.verification.interpreter import open_interpreter

FOLDER = pathlib.Path(__file__).parent


def operator_classes() -> list[type[Operator]]:
    """Every class of `tflite_export.operators` that a plan can hold."""
    for module in pkgutil.iter_modules(operators.__path__, f"{operators.__name__}."):
        importlib.import_module(module.name)
    found, waiting = [], [Operator]
    while waiting:
        waiting.extend(subclasses := waiting.pop().__subclasses__())
        found.extend(one for one in subclasses if not inspect.isabstract(one))
    own = [one for one in found if one.__module__.startswith(f"{operators.__name__}.")]
    return sorted(dict.fromkeys(own), key=lambda one: one.__name__)


def samples() -> dict[type[Operator], Sample]:
    """What the test modules of this folder offer, each in its `SAMPLES`."""
    names = sorted(path.stem for path in FOLDER.glob("test_*.py") if path != pathlib.Path(__file__))
    modules = [importlib.import_module(f"tests.tflite_export.operators.{name}") for name in names]
    return {kind: sample for module in modules for kind, sample in getattr(module, "SAMPLES", {}).items()}


CLASSES = operator_classes()


@pytest.fixture(scope="module")
def sample(request) -> Sample:
    kind = request.param
    assert kind in samples(), (
        f"{kind.__name__} has no sample: give one in SAMPLES of test_{kind.__module__.split('.')[-1]}.py"
    )
    return samples()[kind]


each_class = pytest.mark.parametrize("sample", CLASSES, indirect=True, ids=lambda kind: kind.__name__)


def test_classes_are_found():
    assert {operators.Convolution, operators.Add, operators.Softmax} <= set(CLASSES)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_class_is_exported(kind):
    assert getattr(operators, kind.__name__, None) is kind and kind.__name__ in operators.__all__


@each_class
@settings(max_examples=10)
@given(data=st.data())
def test_xnnpack_takes_what_an_operator_says_it_takes(sample, data):
    operator = data.draw(sample.operators)
    interpreter = open_interpreter(write_file(plan_of(operator), "int8", "int8"))
    assert is_delegated(interpreter) == operator.runs_in_xnnpack


@pytest.mark.judges
@each_class
@settings(max_examples=4)
@given(data=st.data(), seed=seeds)
def test_the_micro_kernels_compute_what_an_operator_does(sample, data, seed):
    operator = data.draw(sample.operators)
    values = random_values(operator, seed)
    try:
        (found,) = judges.run("tflm", write_file(plan_of(operator), "int8", "int8"), values)
    except judges.JudgeError:
        reject()  # FULLY_CONNECTED with packed weights, some ranks; a class that it never takes fails the test
    known = dict(zip(plan_of(operator).inputs, values, strict=True))
    planned = operator.compute([known[x].astype(np.float32) for x in operator.inputs], "tflm")
    np.testing.assert_array_equal(found, planned)


@pytest.mark.thinned(3)
@each_class
@settings(max_examples=3)
@given(data=st.data(), seed=seeds)
def test_a_graph_computes_what_eager_operations_do(sample, data, seed):
    """The twin scores in graphs, where an optimizer rewrites what it can."""
    operator = data.draw(sample.operators)
    known = dict(zip(plan_of(operator).inputs, random_values(operator, seed), strict=True))
    values = [tf.constant(known[x], tf.float32) for x in operator.inputs]
    for kernels in KERNELS:
        graph = tf.function(lambda *read, kernels=kernels: operator.compute(list(read), kernels), autograph=False)
        np.testing.assert_array_equal(graph(*values), operator.compute(values, kernels))


@pytest.mark.thinned(3)
@each_class
@settings(max_examples=5)
@given(data=st.data())
def test_the_shapes_of_graphs_are_known(sample, data):
    """A Keras model is built of them: without a batch size, all other sizes as planned."""
    operator = data.draw(sample.operators)
    specs = [tf.TensorSpec((None, *x.shape), tf.float32) for x in operator.inputs]
    for kernels in KERNELS:
        compute = tf.function(lambda *read, kernels=kernels: operator.compute(list(read), kernels), autograph=False)
        (output,) = compute.get_concrete_function(*specs).outputs
        assert tuple(output.shape[1:]) == operator.output.shape
