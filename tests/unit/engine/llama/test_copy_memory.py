"""The memory for copies is mapped ahead of the load, and no further than it needs."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from modelyard.engine.llama import copy_memory as module
from modelyard.engine.llama.copy_memory import AHEAD_BYTES, MIN_BYTES, STEP_BYTES, CopyMemory
from modelyard.system.file_mappings import MappedRange

WAIT_S = 10.0
OTHERS = MappedRange(0, 1 << 30)
NEW = MappedRange(1 << 40, (1 << 40) + 3 * AHEAD_BYTES)
SMALL = MappedRange(1 << 41, (1 << 41) + MIN_BYTES - 1)


class System:
    """Stands in for the system's memory: ``mapped`` are the steps that were asked for."""

    def __init__(self) -> None:
        self.ranges = [OTHERS]
        self.mapped: list[MappedRange] = []
        self.is_able = True
        self._change = threading.Condition()

    def map_for_writing(self, pages: MappedRange) -> bool:
        with self._change:
            self.mapped.append(pages)
            self._change.notify_all()
        return self.is_able

    def await_bytes(self, size: int) -> None:
        with self._change:
            assert self._change.wait_for(lambda: sum(each.size for each in self.mapped) >= size, WAIT_S)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> System:
    system = System()
    monkeypatch.setattr(module, "anonymous_ranges", lambda: list(system.ranges))
    monkeypatch.setattr(module, "map_for_writing", system.map_for_writing)
    monkeypatch.setattr(module, "usable_cores", lambda: 2)
    return system


@pytest.fixture
def memory(system: System) -> Iterator[CopyMemory]:
    memory = CopyMemory()
    system.ranges += [NEW, SMALL]
    yield memory
    memory.end()


def test_new_memory_is_mapped_a_bounded_part_ahead_of_the_load(system: System, memory: CopyMemory) -> None:
    memory.on_progress(0.0, NEW.size)
    system.await_bytes(AHEAD_BYTES)
    memory.on_progress(1 / 3, NEW.size)
    system.await_bytes(2 * AHEAD_BYTES)
    memory.end()
    assert sum(each.size for each in system.mapped) <= 2 * AHEAD_BYTES + STEP_BYTES
    assert system.mapped[0] == MappedRange(NEW.begin, NEW.begin + STEP_BYTES)
    assert all(NEW.begin <= each.begin and each.end <= NEW.end for each in system.mapped)


def test_all_of_it_is_mapped_where_the_load_gets_to_the_end(system: System, memory: CopyMemory) -> None:
    memory.on_progress(0.0, NEW.size)
    memory.on_progress(1.0, NEW.size)
    system.await_bytes(NEW.size)
    memory.end()
    assert system.mapped[-1].end == NEW.end


def test_it_ends_where_the_system_cannot(system: System, memory: CopyMemory) -> None:
    system.is_able = False
    memory.on_progress(0.0, NEW.size)
    system.await_bytes(STEP_BYTES)
    memory.on_progress(1.0, NEW.size)
    memory.end()
    assert len(system.mapped) == 1


def test_a_load_that_copies_little_has_no_thread(system: System, memory: CopyMemory) -> None:
    memory.on_progress(0.0, MIN_BYTES - 1)
    memory.on_progress(1.0, MIN_BYTES - 1)
    memory.end()
    assert system.mapped == []


def test_one_core_copies_alone(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: 1)
    memory = CopyMemory()
    system.ranges.append(NEW)
    memory.on_progress(0.0, NEW.size)
    memory.end()
    assert system.mapped == []
