"""Tests of twins of whole networks: each family of kernels, tensor by tensor."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

from tflite_export.file.writer import write_file
from tflite_export.lowering.lower import make_plan
from tflite_export.plan import KERNELS
from tflite_export.verification.interpreter import RESOLVERS, expose, open_interpreter, run
from tflite_export.verification.twin import build_twin, twin_tensors


@pytest.fixture(scope="module")
def codes(residual, random_images):
    return random_images(residual, 5)[0].astype(np.uint8)


@pytest.mark.parametrize("kernels", [family for family in KERNELS if family in RESOLVERS])
def test_a_twin_is_what_its_kernels_compute(kernels, plan, content, codes):
    from_file = run(open_interpreter(expose(plan, content), kernels), codes)
    from_twin = twin_tensors(plan, kernels)([codes])
    assert set(from_twin) == {*plan.inputs, *plan.tensors}
    for tensor, values in zip(plan.tensors, from_file, strict=True):
        np.testing.assert_array_equal(from_twin[tensor], values, tensor.name)
    np.testing.assert_array_equal(build_twin(plan, kernels).predict(codes, verbose=0), from_file[-1])


def test_a_graph_computes_what_single_calls_compute(plan, codes):
    """TensorFlow's optimizer must fold no multiplier into a kernel: that rounds otherwise."""
    for kernels in KERNELS:
        twin = build_twin(plan, kernels)
        np.testing.assert_array_equal(twin.predict(codes, verbose=0), twin(codes))


def test_the_integers_do_not_depend_on_the_batch(plan, codes):
    twin = build_twin(plan)
    one_by_one = np.concatenate([twin(codes[place : place + 1]) for place in range(len(codes))])
    np.testing.assert_array_equal(twin(codes), one_by_one)


def test_several_inputs_and_outputs_keep_their_order(trained):
    inputs = [layers.Input((size, size, 3), name=f"in_{size}") for size in (4, 8, 6)]
    pooled = [layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1, activation="relu")(x)) for x in inputs]
    outputs = [layers.Dense(units)(x) for units, x in zip((5, 2, 7), reversed(pooled), strict=True)]
    plan = make_plan(trained(tf_keras.Model(inputs, outputs)))
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, 256, (2, *x.shape)).astype(np.uint8) for x in plan.inputs]
    from_file = run(open_interpreter(write_file(plan)), *codes)
    for twin, file in zip(build_twin(plan)(codes), from_file, strict=True):
        np.testing.assert_array_equal(twin, file)
