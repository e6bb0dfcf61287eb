"""Tests of ADD's grids: ranges however far apart are summed within what the operator states, or refused."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tflite_export.lowering.closing import close_add
from tflite_export.lowering.pending import Pending, Problem
from tflite_export.plan import KERNELS, Operator, Tensor

steps = st.integers(-26, 14).flatmap(
    lambda exponent: st.sampled_from([2.0**exponent, 1.37 * 2.0**exponent, 0.999 * 2.0**exponent])
)


class Walk:
    """What a lowering collects."""

    def __init__(self):
        self.operators: list[Operator] = []

    def named(self, name: str) -> str:
        return name

    def append(self, operator: Operator) -> Tensor:
        self.operators.append(operator)
        return operator.output


def tensor(name: str, step: float, zero_point: int = 0) -> Tensor:
    scale = np.float32(step)
    return Tensor(name, (1,), scale, zero_point, float(scale))


def added(x: Tensor, y: Tensor, output: Tensor) -> list[Operator]:
    walk = Walk()
    close_add(walk, Pending((x, y), ("add",), close_add), output, "none")
    return walk.operators


def computed(operators: list[Operator], values: dict[Tensor, np.ndarray], kernels: str) -> np.ndarray:
    for operator in operators:
        values[operator.output] = np.asarray(operator.compute([values[x] for x in operator.inputs], kernels))
    return values[operators[-1].output]


zero_points = st.sampled_from([-128, 0, 37])


@pytest.mark.slow
@settings(deadline=None, derandomize=True, database=None, max_examples=150)
@given(steps, steps, zero_points, zero_points)
def test_a_sum_is_within_its_slack(left_step, right_step, zero_point, output_zero_point):
    x, y, output = tensor("x", left_step, zero_point), tensor("y", right_step), tensor("z", 1.0, output_zero_point)
    try:
        operators = added(x, y, output)
    except Problem:
        assume(False)
        return
    rng = np.random.default_rng(0)
    codes = [np.append(rng.integers(-128, 128, 2000), one.zero_point + np.arange(-1, 2)) for one in (x, y)]
    left, right = (values.astype(np.float32) for values in np.meshgrid(*(np.unique(values) for values in codes)))
    real = (left - zero_point) * x.step + right * y.step
    exact = np.clip(real, -128 - output_zero_point, 127 - output_zero_point)
    allowed = 0.5 + sum(operator.slack() for operator in operators[-1:])
    for kernels in ("xnnpack", "reference"):
        levels = computed(operators, {x: left, y: right}, kernels) - output_zero_point
        assert np.abs(levels - exact).max() <= allowed
    assert operators[-1].layers == ("add",)
    assert operators[-1].sources == (x, y)


@pytest.mark.parametrize("ratio, rescaled", [(2.0**-10, True), (2.0**-9, False), (255, False), (256, True)])
def test_only_what_add_cannot_read_is_rescaled(ratio, rescaled):
    *before, add = added(tensor("x", ratio), tensor("y", 1.0), tensor("z", 1.0))
    assert [operator.builtin for operator in before] == ["MUL"] * rescaled
    ratios = [float(x.scale / add.output.scale) for x in add.inputs]
    assert all(2**-10 <= ratio < 2**8 for ratio in ratios)


def test_two_coarse_inputs_that_may_cancel_out_are_refused():
    with pytest.raises(
        Problem, match=r"a step of x is 3000 times its own, and one of y 2999; ADD takes less than 2\^8"
    ):
        added(tensor("x", 3000), tensor("y", 2999), tensor("z", 1.0))


def test_two_coarse_inputs_of_few_codes_are_exact():
    """Signs: no code is clipped, so that they cancel out as they should."""
    x, y = (Tensor(name, (1,), np.float32(step), 0, step, -1, 1) for name, step in (("x", 3000.0), ("y", 2999.0)))
    operators = added(x, y, tensor("z", 1.0))
    left, right = (values.astype(np.float32) for values in np.meshgrid([-1, 0, 1], [-1, 0, 1]))
    for kernels in KERNELS:
        found = computed(operators, {x: left, y: right}, kernels)
        np.testing.assert_array_equal(found, np.clip(left * 3000 + right * 2999, -128, 127))
