"""Files are in the page cache before a load gets to them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from modelyard.engine.loading import read_ahead as module
from modelyard.engine.loading.read_ahead import CALL_BYTES, CHECK_BYTES, ReadAhead, read_ahead

WAIT_S = 10.0
SIZE = 2 * CHECK_BYTES


def is_cached(path: Path) -> bool:
    with path.open("rb", buffering=0) as file:
        try:
            os.preadv(file.fileno(), [bytearray(SIZE)], 0, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
    return True


@pytest.fixture
def uncached(tmp_path: Path) -> Path:
    """A file that is on the disk alone."""
    path = tmp_path / "m.gguf"
    with path.open("wb") as file:
        file.write(os.urandom(SIZE))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert not is_cached(path), "this file system keeps files in memory: set TMPDIR to a folder on a disk"
    return path


def await_cached(path: Path) -> None:
    until = time.monotonic() + WAIT_S
    while not is_cached(path):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_file_is_cached_once_it_was_read_ahead_and_is_not_read_again(uncached: Path) -> None:
    assert read_ahead([uncached], lambda: True) == SIZE
    await_cached(uncached)
    assert read_ahead([uncached], lambda: True) == 0


def test_a_file_is_read_ahead_beside_what_needs_it(uncached: Path) -> None:
    with ReadAhead([uncached]):
        await_cached(uncached)


def test_it_ends_when_it_is_not_needed_any_more(uncached: Path) -> None:
    asked = iter([True, False])
    assert read_ahead([uncached], lambda: next(asked)) == CHECK_BYTES


def test_it_ends_where_memory_does(uncached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_bytes", lambda: 3 * CALL_BYTES + 1)
    assert read_ahead([uncached], lambda: True) == 3 * CALL_BYTES


def test_a_file_that_is_gone_is_left_to_the_load(uncached: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone.gguf"
    assert read_ahead([gone, uncached], lambda: True) == SIZE


def test_where_the_system_cannot_be_asked_nothing_is_read(uncached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CAN_READ_AHEAD", False)
    assert read_ahead([uncached], lambda: True) == 0
