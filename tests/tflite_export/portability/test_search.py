"""Tests of portable scales and biases: every sum that a channel can reach, under every rule, one by one."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tflite_export.portability.bad_sums import bad_sums
from tflite_export.portability.channels import Channels, reach_of
from tflite_export.portability.proof import bad_reachable_sums
from tflite_export.portability.rounding_rules import disagree, levels_under_all_rules
from tflite_export.portability.search import portable_choice

some = settings(deadline=None, derandomize=True, database=None, max_examples=25)
CHANNELS = 6
UNSIGNED_4, UNSIGNED_8, SIGNED_8 = (0, 15), (0, 255), (-128, 127)


def drawn(seed: int, divisor: int, step: float, ends: tuple[int, int], inputs: int = 9, one_scale=False) -> Channels:
    """Channels whose weights are multiples of `divisor`, and one such product makes about `step` output levels."""
    rng = np.random.default_rng(seed)
    weights = divisor * rng.integers(-(127 // divisor), 127 // divisor + 1, (inputs, CHANNELS))
    weights[0] = divisor  # which thereby is what all have in common
    input_scale, output_scale = np.exp(rng.normal(0, 2, 2)).astype(np.float32)
    multiplier = step / divisor * np.exp(rng.normal(0, 0.4, 1 if one_scale else CHANNELS)) * np.ones(CHANNELS)
    bias = np.rint(rng.uniform(-100, 100, CHANNELS) / multiplier).astype(np.int64)
    weight_scale = (multiplier * output_scale / input_scale).astype(np.float32)
    return Channels(
        *reach_of(weights, 0, 15), bias, input_scale, weight_scale, output_scale, *ends, one_scale=one_scale
    )


def with_choice(channels: Channels) -> tuple[Channels, np.ndarray]:
    choice = portable_choice(channels)
    chosen = dataclasses.replace(channels, weight_scale=choice.weight_scale, bias=choice.bias)
    moved = chosen.scales.exact / channels.scales.exact - 1
    np.testing.assert_allclose(choice.moved, moved, atol=1e-12)
    given = channels.bias * channels.scales.exact
    np.testing.assert_allclose(choice.bias_moved, np.abs(chosen.bias * chosen.scales.exact - given), atol=1e-9)
    return chosen, choice.portable


def all_rules_agree(channels: Channels, channel: int) -> bool:
    """On every sum within reach, by the rules themselves."""
    one = channels.of(np.array([channel]))
    divisor, below, above, bias = (int(values[0]) for values in (one.divisor, one.below, one.above, one.bias))
    first = -(-below // divisor)
    sums = bias + divisor * np.arange(first, above // divisor + 1)
    sums = sums[np.abs(sums) < 2**30]
    levels = [np.clip(found, one.lowest, one.highest) for found in levels_under_all_rules(sums, one.scales)]
    return bool(np.ptp(levels, axis=0).max() == 0)


# By theorem these have a portable scale, whatever their numbers: few ties, or p < f g.
CASES = [
    (18, 0.04, UNSIGNED_4),
    (18, 0.1, SIGNED_8),
    (8, 0.05, SIGNED_8),
    (42, 0.9, SIGNED_8),
    (127, 3.0, SIGNED_8),
    (2, 0.002, SIGNED_8),
    (4, 0.02, UNSIGNED_8),
    (1, 0.002, UNSIGNED_8),
]


@pytest.mark.parametrize(("divisor", "step", "ends"), CASES)
@some
@given(st.integers(0, 2**31))
def test_a_portable_scale_is_found_and_all_rules_agree(divisor, step, ends, seed):
    chosen, portable = with_choice(drawn(seed, divisor, step, ends))
    assert portable.all()
    assert all(all_rules_agree(chosen, channel) for channel in range(CHANNELS))
    assert not bad_reachable_sums(chosen)[1].any()


@some
@given(st.integers(0, 2**31), st.floats(1e-6, 1e-5))
def test_a_channel_that_moves_by_less_than_a_level_keeps_its_scale(seed, step):
    channels = drawn(seed, 1, step, SIGNED_8)
    # Between two levels: a tie is within reach.
    middle = np.random.default_rng(seed).integers(-100, 100, CHANNELS) + 0.5
    channels = dataclasses.replace(channels, bias=np.rint(middle / channels.scales.exact).astype(np.int64))
    assert bad_reachable_sums(channels)[1].any()
    chosen, portable = with_choice(channels)
    assert portable.all()
    assert all(all_rules_agree(chosen, channel) for channel in range(CHANNELS))
    reach = (channels.above - channels.below) * channels.scales.exact
    assert reach.max() < 1
    assert (np.abs(chosen.bias * chosen.scales.exact - middle) < reach + 0.01).all()


@some
@given(st.integers(0, 2**31))
def test_with_one_scale_it_suits_all_channels(seed):
    chosen, portable = with_choice(drawn(seed, 4, 0.02, SIGNED_8, one_scale=True))
    assert portable.all()
    assert len(np.unique(chosen.weight_scale)) == 1
    assert all(all_rules_agree(chosen, channel) for channel in range(CHANNELS))


@some
@given(st.integers(0, 2**31))
def test_signed_outputs_of_plain_int8_weights_have_none(seed):
    channels = drawn(seed, 1, 0.002, SIGNED_8, inputs=100)
    chosen, portable = with_choice(channels)
    for channel in np.flatnonzero(~portable):  # stays as it was
        assert chosen.weight_scale[channel] == channels.weight_scale[channel]
        assert chosen.bias[channel] == channels.bias[channel]
    assert portable.sum() <= 2
    assert all(all_rules_agree(chosen, channel) for channel in np.flatnonzero(portable))


@some
@given(st.integers(0, 2**31), st.sampled_from(CASES))
def test_the_proof_finds_what_the_rules_say(seed, case):
    channels = drawn(seed, *case)
    _, bad = bad_reachable_sums(channels)
    for channel in range(CHANNELS):
        assert (bad[channel] == 0) == all_rules_agree(channels, channel)


@some
@given(st.integers(0, 2**31), st.sampled_from(CASES))
def test_no_sum_is_bad_but_those_next_to_a_tie(seed, case):
    channels = drawn(seed, *case)
    sums, bad = bad_sums(channels, channels.weight_scale[:, None])
    for channel in range(CHANNELS):
        scales = channels.scales_of(channels.weight_scale[channel])
        end = min(130 / float(scales.exact), 200_000)
        every = np.arange(-int(end), int(end))
        found = every[disagree(every, scales, channels.lowest, channels.highest)]
        known = sums[channel, 0][bad[channel, 0]]
        np.testing.assert_array_equal(found, np.unique(known[np.abs(known) <= end - 1]))


def test_a_portable_channel_stays_as_it_is():
    chosen, portable = with_choice(drawn(3, 18, 0.1, SIGNED_8))
    again = portable_choice(chosen)
    assert portable.all() and again.portable.all()
    np.testing.assert_array_equal(again.weight_scale, chosen.weight_scale)
    np.testing.assert_array_equal(again.bias, chosen.bias)
    assert not again.moved.any() and not again.bias_moved.any()


def test_a_channel_without_weights_needs_only_its_bias_clear():
    weights = np.zeros((9, 2), np.int8)
    ends = reach_of(weights, -128, 127)
    one = np.float32(1)
    # A bias of 4.5 levels is a tie, and one step less is rounded to it; 4 is none.
    channels = Channels(*ends, np.array([72, 64]), one, np.full(2, 2.0**-4, np.float32), one, *SIGNED_8)
    assert bad_reachable_sums(channels)[1].tolist() == [1, 0]
    choice = portable_choice(channels)
    assert choice.bias.tolist() == [73, 64] and not choice.moved.any()


def test_outputs_without_ties_are_portable():
    channels = dataclasses.replace(drawn(0, 1, 0.002, SIGNED_8), lowest=5, highest=5)
    assert portable_choice(channels).portable.all()
    assert not bad_reachable_sums(channels)[1].any()
