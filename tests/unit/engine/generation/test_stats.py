"""How often an engine says how it is, and what."""

from __future__ import annotations

from typing import cast

from modelyard.engine.generation.stats import INTERVAL_S, StatsReporter
from modelyard.engine.kv.cache import KvCache
from modelyard.engine.kv.sequence import Sequence
from modelyard.engine.loading.vision import Vision
from modelyard.engine.scheduling.scheduler import Scheduler
from modelyard.engine.scheduling.step_cost import StepCost
from modelyard.protocol.values import EngineStats, SequenceId


def scheduler() -> Scheduler:
    return Scheduler(
        KvCache(100, 4), max_running=2, batch_tokens=32, prefill_beside_decode=32, can_trim=True, cost=StepCost()
    )


def test_an_idle_engine_speaks_once() -> None:
    reporter = StatsReporter(scheduler())
    assert reporter.poll(10.0) == EngineStats(running=0, waiting=0, kv_cells=100, used_cells=0, preemptions=0)
    assert [reporter.poll(10.0 + hours * 3600) for hours in range(3)] == [None] * 3


def test_a_busy_one_speaks_when_it_begins_then_once_a_second_and_when_it_is_done() -> None:
    work = scheduler()
    reporter = StatsReporter(work)
    reporter.poll(0.0)
    for number in range(3):
        work.add(Sequence(SequenceId(number), number, [number] * 5))
    work.schedule()
    used = 100 - work.cache.free
    assert used
    assert reporter.poll(5.0) == EngineStats(running=2, waiting=1, kv_cells=100, used_cells=used, preemptions=0)
    assert reporter.poll(5.0 + INTERVAL_S / 2) is None
    work.preemptions += 2
    assert reporter.poll(5.0 + INTERVAL_S) == EngineStats(2, 1, 100, used, preemptions=2)
    for number in range(3):
        work.remove(SequenceId(number))
    idle = reporter.poll(5.0 + INTERVAL_S)
    assert idle == EngineStats(0, 0, 100, idle.used_cells, preemptions=0)
    assert idle.used_cells, "what was computed is kept for reuse"


class Eyes:
    encoded = 0
    reused = 0


def test_pictures_are_told_once() -> None:
    work, eyes = scheduler(), Eyes()
    reporter = StatsReporter(work, cast("Vision", eyes))
    reporter.poll(0.0)
    work.add(Sequence(SequenceId(0), 0, [1, 2, 3]))
    eyes.encoded, eyes.reused = 3, 1
    first = reporter.poll(1.0)
    assert first is not None
    assert (first.pictures_encoded, first.pictures_reused) == (3, 1)
    eyes.reused = 5
    second = reporter.poll(1.0 + INTERVAL_S)
    assert second is not None
    assert (second.pictures_encoded, second.pictures_reused) == (0, 4)


def test_a_sequence_leaves_the_line_for_the_first_time_once() -> None:
    work = scheduler()
    work.add(Sequence(SequenceId(7), 0, [1, 2, 3]))
    work.schedule()
    assert [sequence.id for sequence in work.started] == [7]
