"""The watch over all engines of a table: what it tells, and how often."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from modelyard.engine.hosts.stalls import StallBounds
from modelyard.engine.hosts.step_watch import StepWatch
from modelyard.engine.scheduling.engine_table import EngineActivity, EngineTable
from modelyard.system.process_use import process_use

WAIT_S = 30.0


class Stalls:
    """What a watch has told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.is_told = threading.Event()

    def __call__(self, activity: EngineActivity, reason: str) -> None:
        self.told.append((activity.name, reason))
        self.is_told.set()


@pytest.fixture
def stalls() -> Stalls:
    return Stalls()


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """A process that sleeps."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def stopped(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


def test_a_stopped_process_is_told_once(stalls: Stalls, other: subprocess.Popen[bytes]) -> None:
    table = EngineTable()
    table.reserve(other.pid, "smol")
    stopped(other)
    watch = StepWatch(table, stalls, StallBounds(still_s=10.0))
    for _ in range(2):
        watch.check(5.0)
    assert stalls.told == []
    for _ in range(10):
        watch.check(5.0)
    # A record that is reserved has no name yet.
    assert stalls.told == [("", "its process has been stopped by a signal for 10 s")]


def test_an_engine_on_a_thread_is_told_by_the_time_that_its_step_takes(stalls: Stalls) -> None:
    table = EngineTable()
    record = table.claim("smol")
    watch = StepWatch(table, stalls, StallBounds(step_cpu_s=10.0, token_cpu_s=1.0))
    record.begin_step([1], 2)
    for _ in range(4):
        watch.check(3.0)
    assert stalls.told == []
    watch.check(3.0)
    watch.check(3.0)
    assert stalls.told == [("smol", "a step of 2 tokens has taken 12 s of computing and does not end")]
    record.begin_step([1], 2)
    for _ in range(4):
        watch.check(3.0)
    assert len(stalls.told) == 1
    watch.check(3.0)
    assert len(stalls.told) == 2


def test_what_is_gone_is_not_looked_at(stalls: Stalls, other: subprocess.Popen[bytes]) -> None:
    table = EngineTable()
    table.reserve(other.pid, "smol")
    other.kill()
    other.wait()
    watch = StepWatch(table, stalls, StallBounds(still_s=0.0))
    watch.check(5.0)
    assert stalls.told == []


def test_it_looks_by_itself_until_it_is_closed(stalls: Stalls, other: subprocess.Popen[bytes]) -> None:
    # Hosts of other tests in this process may have watches of their own.
    before = set(threading.enumerate())
    table = EngineTable()
    table.reserve(other.pid, "smol")
    stopped(other)
    watch = StepWatch(table, stalls, StallBounds(still_s=0.02), poll_s=0.01)
    watch.start()
    watch.start()
    assert stalls.is_told.wait(WAIT_S)
    watch.close()
    watch.close()
    watch.start()
    assert set(threading.enumerate()) <= before


def test_a_process_is_asleep_stopped_or_at_work(other: subprocess.Popen[bytes]) -> None:
    me = process_use(os.getpid())
    assert me is not None
    assert (me.is_asleep, me.is_stopped) == (False, False)
    assert me.cpu_s > 0
    stopped(other)
    use = process_use(other.pid)
    assert use is not None
    assert (use.is_asleep, use.is_stopped) == (True, True)
    first = process_use(other.pid, has_threads=False)
    assert first == use


def test_nothing_is_known_of_a_process_that_has_ended(other: subprocess.Popen[bytes]) -> None:
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert process_use(other.pid) is None
    other.wait()
    assert process_use(other.pid) is None
