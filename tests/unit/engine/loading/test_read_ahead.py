"""Files are asked for before a load gets to them, and only those that are not cached."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from modelyard.engine.loading import read_ahead as module
from modelyard.engine.loading.read_ahead import CALL_BYTES, CHECK_BYTES, ReadAhead, read_ahead

WAIT_S = 10.0
SIZE = 2 * CHECK_BYTES


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(bytes(SIZE))
    return path


class Disk:
    """Stands in for the system: a file is cached where it was asked for in full; ``asked`` is where in order."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.is_read = threading.Event()

    def preadv(self, _file: int, _buffers: object, _offset: int, _flags: int) -> int:
        if not self.is_read.is_set():
            raise BlockingIOError
        return 1

    def posix_fadvise(self, _file: int, begin: int, size: int, _advice: int) -> None:
        self.asked.append((begin, size))
        if begin + size >= SIZE:
            self.is_read.set()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(os, "preadv", disk.preadv)
    monkeypatch.setattr(os, "posix_fadvise", disk.posix_fadvise)
    return disk


def test_a_file_is_asked_for_in_its_order_and_once(file: Path, disk: Disk) -> None:
    assert read_ahead([file], lambda: True) == SIZE
    assert disk.asked == [(begin, CALL_BYTES) for begin in range(0, SIZE, CALL_BYTES)]
    assert read_ahead([file], lambda: True) == 0


def test_a_file_that_the_system_has_cached_is_not_asked_for(file: Path) -> None:
    """Just written."""
    assert read_ahead([file], lambda: True) == 0


def test_a_file_is_read_ahead_beside_what_needs_it(file: Path, disk: Disk) -> None:
    with ReadAhead([file]) as reading:
        assert disk.is_read.wait(WAIT_S)
    reading.end()
    assert len(disk.asked) == SIZE // CALL_BYTES


def test_it_ends_when_it_is_not_needed_any_more(file: Path, disk: Disk) -> None:
    answers = iter([True, False])
    assert read_ahead([file], lambda: next(answers)) == CHECK_BYTES == len(disk.asked) * CALL_BYTES


def test_it_ends_where_memory_does(file: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_bytes", lambda: 3 * CALL_BYTES + 1)
    assert read_ahead([file], lambda: True) == 3 * CALL_BYTES == len(disk.asked) * CALL_BYTES


def test_a_file_that_is_gone_is_left_to_the_load(file: Path, disk: Disk, tmp_path: Path) -> None:
    assert read_ahead([tmp_path / "gone.gguf", file], lambda: True) == SIZE == len(disk.asked) * CALL_BYTES


def test_where_the_system_cannot_be_asked_nothing_is_read(
    file: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CAN_READ_AHEAD", False)
    assert read_ahead([file], lambda: True) == 0
    assert disk.asked == []
