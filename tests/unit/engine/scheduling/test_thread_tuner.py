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


class BesideAProgram:
    """Steps of eight cores, of which another program has one most of the time."""

    def __init__(self) -> None:
        self._steps = 0

    def __call__(self, threads: int) -> float:
        self._steps += 1
        return 2 * even(threads) if threads == 8 and self._steps % 5 else even(threads)


def test_the_number_does_not_change_while_nothing_takes_the_cores() -> None:
    assert set(play(ThreadTuner(), 300, even)) == {8}


def test_a_core_that_another_program_computes_on_is_left_to_it_and_taken_back() -> None:
    tuner = ThreadTuner()
    assert play(tuner, 60, BesideAProgram())[-1] == 7
    assert set(play(tuner, 60, BesideAProgram())) <= {5, 6, 7, 8}
    assert set(play(tuner, 5 * MAX_INTERVAL_S, even)[-100:]) == {8}


def test_trials_take_a_small_part_of_the_time() -> None:
    tuner = ThreadTuner()
    play(tuner, 60, BesideAProgram())
    used = play(tuner, 300, BesideAProgram())
    assert sum(map(even, used)) / len(used) < 1.03 * even(7)


class Disturbed:
    """Steps of which one in five is fast, whatever the threads."""

    def __init__(self) -> None:
        self._steps = 0

    def __call__(self, threads: int) -> float:
        self._steps += 1
        return (0.01 if self._steps % 5 else 0.002) * threads


@pytest.mark.parametrize("allowed", [1, 2])
def test_a_step_has_at_least_one_thread_and_at_most_the_cores(allowed: int) -> None:
    used = play(ThreadTuner(), 60, Disturbed(), allowed=allowed)
    assert set(used) == set(range(1, allowed + 1))
    assert used.count(1) > len(used) / 2


def test_long_steps_have_all_cores() -> None:
    tuner = ThreadTuner()
    play(tuner, 60, Disturbed())
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
    play(tuner, 100, Disturbed())
    assert 1 <= tuner.threads(2, 1) <= 2
