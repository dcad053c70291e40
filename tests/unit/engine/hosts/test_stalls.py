"""What counts as an engine that hangs, and what never does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from modelyard.engine.hosts.stalls import (
    MAX_STEP_CPU_S,
    MAX_STILL_S,
    MAX_TOKEN_CPU_S,
    Observed,
    StallBounds,
    observe,
    stall_reason,
)
from modelyard.engine.scheduling.engine_table import EngineActivity
from modelyard.system.process_use import ProcessUse

POLL_S = 5.0
POLLS = int(MAX_STILL_S / POLL_S)
IN_STEP = EngineActivity("smol", "", 7, "computing", (1,), (), step=3, tokens=2)
IDLE = EngineActivity("smol", "", 7, "idle", (), (), step=3, tokens=2)
ASLEEP = ProcessUse(start=100, cpu_s=5.0, major_faults=1, is_asleep=True, is_stopped=False)
STOPPED = replace(ASLEEP, is_stopped=True)


def after(polls: Iterable[tuple[EngineActivity, ProcessUse]]) -> str | None:
    """Why the engine counts as hanging at the last of ``polls``."""
    seen: Observed | None = None
    reason = None
    for activity, use in polls:
        seen = observe(seen, activity, use, POLL_S)
        reason = stall_reason(seen, activity, StallBounds())
    return reason


def computing(polls: int, cpu_s: float) -> list[tuple[EngineActivity, ProcessUse]]:
    """One step whose process uses ``cpu_s`` between two polls."""
    return [(IN_STEP, replace(ASLEEP, cpu_s=at * cpu_s, is_asleep=False)) for at in range(polls)]


def test_a_process_that_does_nothing_within_a_step_hangs_after_five_minutes() -> None:
    assert after([(IN_STEP, ASLEEP)] * POLLS) is None
    reason = after([(IN_STEP, ASLEEP)] * (POLLS + 1))
    assert reason == "its process has done nothing for 300 s in a step of 2 tokens"


def test_a_stopped_process_hangs_whatever_it_does() -> None:
    assert after([(IDLE, STOPPED)] * POLLS) is None
    assert after([(IDLE, STOPPED)] * (POLLS + 1)) == "its process has been stopped by a signal for 300 s"
    assert "stopped by a signal" in (after([(IN_STEP, STOPPED)] * (POLLS + 1)) or "")


def test_a_process_that_goes_on_after_it_was_stopped_begins_anew() -> None:
    polls = [(IDLE, STOPPED)] * POLLS
    assert after([*polls, (IDLE, ASLEEP), *polls]) is None


def test_an_engine_that_has_nothing_to_do_never_hangs() -> None:
    assert after([(IDLE, ASLEEP)] * 10 * POLLS) is None


def test_one_step_after_the_other_is_progress_however_little_they_use() -> None:
    assert after([(replace(IN_STEP, step=at), ASLEEP) for at in range(10 * POLLS)]) is None


def test_waiting_for_a_core_or_a_disk_is_no_stall_however_long() -> None:
    assert after([(IN_STEP, replace(ASLEEP, is_asleep=False))] * 100 * POLLS) is None


def test_waiting_for_swapped_pages_is_no_stall() -> None:
    assert after([(IN_STEP, replace(ASLEEP, major_faults=at)) for at in range(10 * POLLS)]) is None


def test_any_sign_of_work_ends_the_stillness() -> None:
    still = [(IN_STEP, ASLEEP)] * POLLS
    worked = replace(ASLEEP, cpu_s=ASLEEP.cpu_s + 0.02 * POLL_S + 0.01)
    assert after([*still, *[(IN_STEP, worked)] * (POLLS - 1)]) is None


def test_a_step_that_computes_for_ever_hangs_by_the_cpu_time_that_its_size_allows() -> None:
    allowed_s = MAX_STEP_CPU_S + IN_STEP.tokens * MAX_TOKEN_CPU_S
    per_poll_s = 8 * POLL_S
    polls = int(allowed_s / per_poll_s)
    assert after(computing(polls, per_poll_s)) is None
    assert "a step of 2 tokens has taken" in (after(computing(polls + 2, per_poll_s)) or "")


def test_a_larger_step_may_take_longer() -> None:
    larger = replace(IN_STEP, tokens=512)
    polls = [(larger, use) for _, use in computing(200, 40.0)]
    assert after(polls) is None
    assert after(computing(200, 40.0)) is not None


def test_a_process_without_cores_uses_up_nothing() -> None:
    assert after(computing(1000, 0.2)) is None


def test_another_process_of_the_same_number_is_another_one() -> None:
    still = [(IN_STEP, ASLEEP)] * POLLS
    assert after([*still, (IN_STEP, replace(ASLEEP, start=101))]) is None
