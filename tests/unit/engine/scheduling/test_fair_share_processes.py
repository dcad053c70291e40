"""Who waits for whom, of engines that share a device and run in processes of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.engine.hosts.journal import Journal, open_journal
from modelyard.engine.scheduling import fair_share
from modelyard.engine.scheduling.fair_share import Device, DeviceShare
from support.table_process import TableProcess, table_process

WAIT_S = 60.0

# It is in a step until it is told to leave it, and stays at the device.
IN_A_STEP = """
with device.joined(seat):
    with device.step(seat):
        say("computes")
        hear()
        left = time.monotonic()
    say(left)
    hear()
"""
URGENT = "device, seat = Device(EngineTable.open(path)), DeviceShare(priority=1)" + IN_A_STEP
BEHIND = "device, seat = Device(EngineTable.open(path)), DeviceShare(weight=2.0)" + IN_A_STEP
EQUAL = "device, seat = Device(EngineTable.open(path)), DeviceShare()" + IN_A_STEP
MORE_URGENT_NOW = """
device, seat = Device(EngineTable.open(path)), DeviceShare()
with device.joined(seat):
    say("joined")
    hear()
    device.set_share(seat, 1.0, 1)
    with device.step(seat):
        say("computes")
        hear()
        left = time.monotonic()
    say(left)
    hear()
"""


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = open_journal(tmp_path)
    yield journal
    journal.close()


@pytest.fixture
def no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait takes as long as its reason does."""
    monkeypatch.setattr(fair_share, "MAX_WAIT_S", 10 * WAIT_S)


def seat(had: float = 0.0) -> DeviceShare:
    made = DeviceShare()
    made.virtual_time = had
    return made


def compute(device: Device, own: DeviceShare) -> tuple[threading.Thread, list[float]]:
    """Begin a step on a thread; that, and when the step was let in, once it was."""
    entered: list[float] = []

    def run() -> None:
        with device.step(own):
            entered.append(time.monotonic())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, entered


def waited(device: Device, own: DeviceShare, child: TableProcess) -> bool:
    """Whether a step here begins only after that of the child has ended."""
    thread, entered = compute(device, own)
    deadline = time.monotonic() + WAIT_S
    while not own.is_active and not entered:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    child.tell("leave")
    left = float(child.heard())
    thread.join(WAIT_S)
    return entered[0] >= left


@pytest.mark.usefixtures("no_end")
@pytest.mark.parametrize(("program", "had"), [(URGENT, 0.0), (BEHIND, 5.0)])
def test_an_engine_in_another_process_is_waited_for(journal: Journal, program: str, had: float) -> None:
    device, own = Device(journal.table), seat(had)
    with device.joined(own), table_process(program, journal.path, journal.table) as child:
        assert child.heard() == "computes"
        assert waited(device, own, child)


@pytest.mark.usefixtures("no_end")
def test_an_engine_in_another_process_that_becomes_more_urgent_is_waited_for(journal: Journal) -> None:
    device, own = Device(journal.table), seat()
    with device.joined(own), table_process(MORE_URGENT_NOW, journal.path, journal.table) as child:
        assert child.heard() == "joined"
        with device.step(own):
            child.tell("reseat")
            assert child.heard() == "computes"
        assert waited(device, own, child)


@pytest.mark.usefixtures("no_end")
def test_an_engine_that_joins_from_another_process_has_missed_its_time(journal: Journal) -> None:
    """It says how much it has had, once it is let in beside one that has had 40 seconds."""
    program = """
device, seat = Device(EngineTable.open(path)), DeviceShare(weight=2.0)
with device.joined(seat), device.step(seat):
    say(seat.virtual_time)
    hear()
"""
    device, own = Device(journal.table), seat(40.0)
    with device.joined(own):
        own.is_active = True
        with table_process(program, journal.path, journal.table) as child:
            assert child.heard() == "40.0"


@pytest.mark.usefixtures("no_end")
def test_engines_of_equal_right_compute_at_the_same_time_in_two_processes(journal: Journal) -> None:
    device, own = Device(journal.table), seat(5.0)
    with device.joined(own), table_process(EQUAL, journal.path, journal.table) as child:
        assert child.heard() == "computes"
        with device.step(own):
            assert not own.is_active


def test_a_process_that_is_killed_in_a_step_holds_nobody_up_for_longer_than_the_longest_wait(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fair_share, "MAX_WAIT_S", 0.1)
    device, own = Device(journal.table), seat()
    with device.joined(own), table_process(URGENT, journal.path, journal.table) as child:
        assert child.heard() == "computes"
        child.kill()
        thread, entered = compute(device, own)
        thread.join(WAIT_S)
        assert entered
        assert device.is_busy


@pytest.mark.usefixtures("no_end")
def test_a_process_that_was_killed_in_a_step_is_not_waited_for_once_its_records_are_free(journal: Journal) -> None:
    device, own = Device(journal.table), seat()
    with device.joined(own), table_process(URGENT, journal.path, journal.table) as child:
        assert child.heard() == "computes"
        thread, entered = compute(device, own)
        child.kill()
        assert not entered
        journal.table.release_of(child.pid)
        thread.join(WAIT_S)
        assert entered


def test_an_engine_in_another_process_makes_the_device_busy(journal: Journal) -> None:
    device = Device(journal.table)
    with device.joined(seat()), table_process(URGENT, journal.path, journal.table) as child:
        assert not device.is_busy
        assert child.heard() == "computes"
        assert device.is_busy
        child.kill()
        journal.table.release_of(child.pid)
        assert not device.is_busy
