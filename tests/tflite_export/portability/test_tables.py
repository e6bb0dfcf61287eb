"""Tests of functions as tables: the same integers, in a form that all runtimes compute alike."""

import numpy as np
import pytest

from tflite_export.file.writer import write_file
from tflite_export.operators import Logistic, Lookup, MultiplyConstant
from tflite_export.plan import KERNELS, Plan, Tensor
from tflite_export.portability.plans import prove
from tflite_export.portability.tables import with_centred_tables, with_tables
from tflite_export.verification.interpreter import RESOLVERS, open_interpreter, run

CODES = np.arange(-128, 128)


def tensor(name: str, scale: float, zero_point: int) -> Tensor:
    return Tensor(name, (256,), np.float32(scale), zero_point, scale)


def plan_of(kind: str, zero_point: int) -> Plan:
    x = tensor("x", 0.1, zero_point)
    y = {
        "logistic": lambda: Logistic((x,), tensor("y", 1 / 256, -128)),
        # A half: every odd product is a tie.
        "mul": lambda: MultiplyConstant((x,), tensor("y", 0.2, zero_point), 127, np.float32(1 / 127), 0, "none"),
        "table": lambda: Lookup((x,), tensor("y", 0.2, 3), np.roll(CODES, 77)),
    }[kind]()
    return Plan((x,), (y,), (y.output,), ("x",), ("y",))


@pytest.mark.parametrize("zero_point", [0, -128, 5])
@pytest.mark.parametrize("kind", ["logistic", "mul", "table"])
def test_a_table_is_the_function_that_xnnpack_computes(kind, zero_point):
    plan = plan_of(kind, zero_point)
    assert prove(plan).whole == (kind == "table" and zero_point == 0)
    tables = with_tables(plan)
    assert prove(tables).whole
    assert tables.operators[-1].sources in ((), plan.inputs)
    values = CODES.astype(np.float32)
    expected = np.asarray(plan.operators[0].compute([values], "xnnpack"))
    for kernels in KERNELS:
        found = values
        for operator in tables.operators:
            found = np.asarray(operator.compute([found], kernels))
        np.testing.assert_array_equal(found, expected)
    content = write_file(tables, "int8", "int8")
    for kernels in RESOLVERS:
        (found,) = run(open_interpreter(content, kernels), CODES.astype(np.int8)[None])
        np.testing.assert_array_equal(found[0], expected)


@pytest.mark.parametrize("kind", ["logistic", "mul", "table"])
def test_tables_alone_are_centred(kind):
    plan = plan_of(kind, 5)
    centred = with_centred_tables(plan)
    if kind == "table":
        assert prove(centred).whole
    else:
        assert centred.operators == plan.operators
