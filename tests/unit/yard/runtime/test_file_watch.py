"""Files are watched while they are mapped, whatever their names lead to."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from modelyard.system.file_stamp import stamps_of
from modelyard.yard.runtime.file_watch import FileWatch, WatchedFiles, WatchedWeights

WAIT_S = 10.0


class ChangeRecorder:
    """Records the changes that a watch reports."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._is_reported = threading.Event()

    def __call__(self, name: str) -> None:
        self.names.append(name)
        self._is_reported.set()

    def wait(self) -> list[str]:
        assert self._is_reported.wait(WAIT_S)
        return self.names


@pytest.fixture
def watch():
    watch = FileWatch(interval_s=0.01)
    yield watch
    watch.close()


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "a.gguf", tmp_path / "mmproj.gguf"
    for path in paths:
        path.write_bytes(b"weights")
    return paths


def open_files(folder: Path) -> int:
    """How many descriptors of this process are files in ``folder``."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        # The listing has a descriptor of its own, which is gone by now.
        with suppress(FileNotFoundError):
            found += link.readlink().is_relative_to(folder)
    return found


@pytest.mark.parametrize("number", [0, 1])
def test_each_truncated_file_is_reported_once(watch: FileWatch, files: tuple[Path, Path], number: int) -> None:
    changes = ChangeRecorder()
    watched = watch.add(stamps_of(files), changes)
    os.truncate(files[number], 2)
    assert changes.wait() == [files[number].name]
    # What it returns depends on whether the thread has closed the files by now.
    watched.check()
    assert changes.names == [files[number].name]


def test_a_change_since_the_header_was_read_is_reported(watch: FileWatch, files: tuple[Path, Path]) -> None:
    stamps = stamps_of(files)
    os.truncate(files[0], 2)
    changes = ChangeRecorder()
    watch.add(stamps, changes)
    assert changes.wait() == ["a.gguf"]


def test_a_file_that_is_replaced_is_none_that_was_written_over(files: tuple[Path, Path], tmp_path: Path) -> None:
    changes = ChangeRecorder()
    watched = WatchedFiles(stamps_of(files), changes)
    (tmp_path / "new").write_bytes(b"other weights")
    (tmp_path / "new").replace(files[0])
    assert watched.check() is None
    os.truncate(files[0], 2)
    assert watched.check() is None
    for device in watched.devices:
        watched.close(device)


def test_what_was_renamed_is_watched_under_its_new_name(files: tuple[Path, Path], tmp_path: Path) -> None:
    changes = ChangeRecorder()
    watched = WatchedFiles(stamps_of(files), changes)
    files[0].rename(tmp_path / "old.gguf")
    os.truncate(tmp_path / "old.gguf", 2)
    assert watched.check() == "a.gguf"
    for device in watched.devices:
        watched.close(device)


def test_an_ended_watch_reports_nothing_and_closes_its_files(files: tuple[Path, Path]) -> None:
    changes = ChangeRecorder()
    watched = WatchedFiles(stamps_of(files), changes)
    assert open_files(files[0].parent) == 2
    watched.end()
    os.truncate(files[0], 2)
    watched.check()
    for device in watched.devices:
        watched.close(device)
    assert changes.names == []
    assert open_files(files[0].parent) == 0


def test_the_watch_of_parked_weights_ends_with_them(files: tuple[Path, Path]) -> None:
    class Weights:
        releases = 0

        def release(self) -> None:
            self.releases += 1

    changes, weights = ChangeRecorder(), Weights()
    watched = WatchedFiles(stamps_of(files), changes)
    WatchedWeights(weights, watched).release()
    assert weights.releases == 1
    assert watched.is_over
    for device in watched.devices:
        watched.close(device)


def test_a_file_that_cannot_be_opened_is_watched_by_its_name(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def too_many(*_: object) -> int:
        raise OSError(24, "Too many open files")

    stamps, changes = stamps_of(files), ChangeRecorder()
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", too_many)
        watched = WatchedFiles(stamps, changes)
    assert "Too many open files" in caplog.text
    assert watched.check() is None
    os.truncate(files[1], 2)
    assert watched.check() == "mmproj.gguf"


def test_a_watch_that_is_closed_lets_go_of_all(files: tuple[Path, Path]) -> None:
    watch = FileWatch(interval_s=WAIT_S)
    before = threading.active_count()
    watch.add(stamps_of(files), ChangeRecorder())
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "files of models" and thread.is_alive()][
        -1:
    ]
    watch.close()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    assert threading.active_count() <= before
    assert open_files(files[0].parent) == 0
