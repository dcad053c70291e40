"""How long steps take, learned from those that were computed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.engine.scheduling.step_cost import StepCost


def known(**seconds: float) -> StepCost:
    """Measured costs of steps of so many tokens."""
    cost = StepCost()
    for tokens, took in seconds.items():
        cost.observe(int(tokens[1:]), took)
    return cost


def test_before_any_step_nothing_is_known_and_nothing_limits() -> None:
    assert StepCost().seconds(10) == 0
    assert StepCost().max_tokens(5, 0.001, 100) == 100


def test_between_two_known_steps_the_time_lies_on_a_line_and_beyond_them_in_proportion() -> None:
    cost = known(_8=10.0, _16=14.0)
    assert [cost.seconds(tokens) for tokens in (4, 8, 12, 16, 32)] == [5.0, 10.0, 12.0, 14.0, 28.0]


def test_a_larger_step_never_takes_less() -> None:
    cost = known(_8=10.0, _16=7.0, _32=20.0)
    assert cost.seconds(12) == 10.0
    assert cost.seconds(16) <= cost.seconds(17)


def test_newer_steps_count_more_and_a_disturbed_one_little() -> None:
    cost = known(_4=1.0)
    for _ in range(30):
        cost.observe(4, 2.0)
    assert cost.seconds(4) == pytest.approx(2.0, rel=0.01)
    cost.observe(4, 1000.0)
    assert cost.seconds(4) < 3.0


def test_the_first_steps_of_an_engine_count_alike() -> None:
    cost = StepCost()
    for seconds in (9.0, 1.0, 2.0):
        cost.observe(4, seconds)
    assert cost.seconds(4) == pytest.approx(4.0)


def test_before_any_step_a_step_costs_as_much_as_its_tokens_one_by_one() -> None:
    assert [StepCost().relative(tokens) for tokens in (1, 2, 7)] == [1.0, 2.0, 7.0]


def test_what_a_step_costs_is_told_in_steps_of_one_token() -> None:
    cost = known(_1=5.0, _2=7.0, _4=10.0, _8=15.0)
    assert [cost.relative(tokens) for tokens in (1, 2, 3, 4, 6, 8)] == pytest.approx([1.0, 1.4, 1.7, 2.0, 2.5, 3.0])


def test_a_slow_first_prompt_does_not_make_steps_that_were_never_tried_look_expensive() -> None:
    cost = known(_1=10.0, _16=900.0)
    assert cost.relative(2) == pytest.approx(1.35)
    assert cost.relative(16) == 90.0
    for _ in range(2):
        cost.observe(2, 20.0)
    assert cost.relative(2) == 2.0


def test_relative_costs_stay_the_same_until_they_have_changed_by_a_fifth() -> None:
    cost = known(_1=10.0, _8=20.0)
    assert cost.relative(8) == 2.0
    for _ in range(20):
        cost.observe(8, 23.0)
    assert cost.relative(8) == 2.0
    for _ in range(20):
        cost.observe(8, 25.0)
    assert cost.relative(8) > 2.4


@given(st.integers(0, 100), st.floats(0, 300), st.integers(0, 600))
def test_the_most_tokens_that_fit_fit_and_one_more_does_not(beside: int, limit_s: float, most: int) -> None:
    cost = known(_1=10.0, _8=12.0, _64=60.0)
    count = cost.max_tokens(beside, limit_s, most)
    assert 0 <= count <= most
    assert count == 0 or cost.seconds(beside + count) <= limit_s
    assert count == most or cost.seconds(beside + count + 1) > limit_s
