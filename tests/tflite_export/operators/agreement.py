"""Whether all who compute one operator compute the same integers: its class, NumPy, and LiteRT from a file."""

import dataclasses
from collections.abc import Callable

import numpy as np
from hypothesis.strategies import SearchStrategy

from tflite_export.file.writer import write_file
from tflite_export.plan import KERNELS, Operator, Plan
from tflite_export.verification.interpreter import RESOLVERS, open_interpreter, run

IMAGES = 3


@dataclasses.dataclass(frozen=True)
class Sample:
    """What the tests of one operator class draw from.

    Args:
      operators: instances that an exporter could plan.
      definition: `definition(operator, kernels, *values)`, the output's integers in NumPy.
    """

    operators: SearchStrategy[Operator]
    definition: Callable


def plan_of(operator: Operator) -> Plan:
    """The plan of one operator."""
    inputs = tuple(dict.fromkeys(operator.inputs))
    return Plan(inputs, (operator,), (operator.output,), tuple(x.name for x in inputs), (operator.output.name,))


def random_values(operator: Operator, seed: int) -> list[np.ndarray]:
    """Integers for each input, in the order of the plan's, the last image of extreme ones."""
    rng = np.random.default_rng(seed)
    found = []
    for x in plan_of(operator).inputs:
        values = rng.integers(x.lowest, x.highest, (IMAGES, *x.shape), np.int8, endpoint=True)
        values[-1] = rng.choice([x.lowest, x.highest], x.shape)
        found.append(values)
    return found


def assert_sample_exact(sample: Sample, data, seed: int) -> None:
    """One drawn operator is exact, on random integers."""
    operator = data.draw(sample.operators)
    assert_exact(operator, sample.definition, random_values(operator, seed))


def assert_exact(operator: Operator, definition: Callable, values: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The operator's class, NumPy and LiteRT give equal integers, each family of kernels its own.

    Returns:
      For each family, the integers.
    """
    plan = plan_of(operator)
    known = dict(zip(plan.inputs, values, strict=True))
    read = [known[x] for x in operator.inputs]
    content = write_file(plan, "int8", "int8")
    results = {}
    for kernels in KERNELS:
        planned = np.asarray(operator.compute([one.astype(np.float32) for one in read], kernels))
        defined = definition(operator, kernels, *(one.astype(np.int64) for one in read))
        assert planned.shape == (len(read[0]), *operator.output.shape)
        np.testing.assert_array_equal(planned, defined, f"{kernels}: the class differs from NumPy")
        if kernels in RESOLVERS:
            interpreter = open_interpreter(content, kernels)
            (found,) = run(interpreter, *values)
            np.testing.assert_array_equal(found, planned, f"{kernels}: LiteRT differs from the class")
            if kernels == "xnnpack":
                assert is_delegated(interpreter) == operator.runs_in_xnnpack, "runs_in_xnnpack"
        results[kernels] = planned.astype(np.int64)
    return results


def is_delegated(interpreter) -> bool:
    """Whether XNNPACK has taken the one operator of a file."""
    return any(operator["op_name"] == "DELEGATE" for operator in interpreter._get_ops_details())
