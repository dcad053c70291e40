"""With how many threads an engine decodes, by the times of its steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from modelyard.engine.scheduling.thread_tuner import MAX_INTERVAL_S, MAX_TOKENS, ThreadTuner


def play(tuner: ThreadTuner, seconds: float, step_s: Callable[[int], float], *, allowed: int = 8) -> list[int]:
    """The numbers of threads of the steps of so many seconds."""
    used: list[int] = []
    passed = 0.0
    while passed < seconds:
        threads = tuner.threads(allowed, 1)
        took_s = step_s(threads)
        tuner.observe(took_s)
        used.append(threads)
        passed += took_s
    return used


def even(threads: int) -> float:
    """Steps that each thread makes faster."""
    return 0.08 / threads


def beside_a_program(threads: int) -> float:
    """Steps of eight cores, of which another program has one."""
    return 2 * even(threads) if threads == 8 else even(threads)


def bound_by_memory(threads: int) -> float:
    """Steps that three threads make as fast as they can be; more get in each other's way."""
    return 0.03 + 0.002 * max(0, threads - 3) if threads >= 3 else 0.09 / threads


def test_all_cores_are_used_where_each_makes_it_faster_and_trials_cost_little() -> None:
    used = play(ThreadTuner(), 300, even)
    assert set(used) == {6, 7, 8}
    assert sum(map(even, used)) / len(used) < 1.01 * even(8)


def test_trials_of_long_steps_are_rare() -> None:
    used = play(ThreadTuner(), 3000, lambda threads: 2.0 / threads)
    assert sum(2.0 / threads for threads in used) / len(used) < 1.02 * 2.0 / 8


def test_a_core_that_another_program_computes_on_is_left_to_it_and_taken_back() -> None:
    tuner = ThreadTuner()
    assert play(tuner, 60, beside_a_program)[-1] == 7
    assert play(tuner, 5 * MAX_INTERVAL_S, even)[-1] == 8


def test_the_best_number_is_found_step_by_step() -> None:
    tuner = ThreadTuner()
    used = play(tuner, 120, bound_by_memory)
    assert used[-1] in {3, 4, 5}


@pytest.mark.parametrize("allowed", [1, 2])
def test_a_step_has_at_least_one_thread_and_at_most_the_cores(allowed: int) -> None:
    tuner = ThreadTuner()
    assert set(play(tuner, 60, lambda threads: 0.01 * threads, allowed=allowed)) <= set(range(1, allowed + 1))
    assert tuner.threads(allowed, 1) == 1


def test_long_steps_have_all_cores() -> None:
    tuner = ThreadTuner()
    play(tuner, 60, lambda threads: 0.01 * threads)
    assert tuner.threads(8, MAX_TOKENS + 1) == 8


def test_a_trial_ends_where_steps_change() -> None:
    """Steps of more sequences take longer, whatever the threads."""
    tuner = ThreadTuner()
    passed = steps = 0
    while passed < 200:
        tokens = 1 + steps % 2
        took_s = even(tuner.threads(8, tokens)) * tokens
        tuner.observe(took_s)
        passed, steps = passed + took_s, steps + 1
    assert tuner.threads(8, 1) == 8


def test_fewer_cores_later_leave_at_least_one_thread() -> None:
    tuner = ThreadTuner()
    play(tuner, 100, lambda threads: 0.01 * threads, allowed=8)
    assert 1 <= tuner.threads(2, 1) <= 2
