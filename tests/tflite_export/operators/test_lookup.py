"""Tests of tables of 256 results: any integers, one for each of the input's."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tflite_export.operators.agreement import Sample, assert_exact, assert_sample_exact, plan_of
from tests.tflite_export.operators.drawing import seeds, tensor, tensors
from tflite_export.file.reader import check_file
from tflite_export.file.writer import write_file
from tflite_export.operators import Lookup


def looked_up(operator: Lookup, kernels: str, x):
    return operator.table.astype(np.int64)[x + 128]


@st.composite
def lookups(draw) -> Lookup:
    x = draw(tensors("x", draw(st.sampled_from([(256,), (3, 5), (4, 4, 3)]))))
    table = np.random.default_rng(draw(seeds)).integers(-128, 127, 256, np.int8, endpoint=True)
    return Lookup((x,), draw(tensors("y", x.shape)), table)


SAMPLES = {Lookup: Sample(lookups(), looked_up)}


@settings(max_examples=20)
@given(data=st.data(), seed=seeds)
def test_drawn_tables(data, seed):
    assert_sample_exact(SAMPLES[Lookup], data, seed)


def test_every_integer_finds_its_own():
    operator = Lookup((tensor("x", (256,), 1, 0),), tensor("y", (256,), 1, 0), np.arange(127, -129, -1))
    values = np.arange(-128, 128, dtype=np.int8)[None]
    for found in assert_exact(operator, looked_up, [values]).values():
        np.testing.assert_array_equal(found, values[:, ::-1])


def test_two_tables_in_one_file_do_not_share_their_names():
    x, y, z = (tensor(name, (256,), 1, 0) for name in "xyz")
    first = Lookup((x,), y, np.arange(127, -129, -1))
    plan = plan_of(first)
    plan = type(plan)((x,), (first, Lookup((y,), z, np.arange(-128, 128))), (z,), ("x",), ("z",))
    assert plan.places == (2, 5)
    check_file(plan, write_file(plan, "int8", "int8"), "int8", "int8")
