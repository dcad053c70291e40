"""Prompts on disk: found again as they were, or not at all."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from modelyard.engine.kv import disk as kv_store
from modelyard.engine.kv.disk import KvDiskCache, Unsaved
from modelyard.protocol.kv_snapshot import KvState

PLENTY = 2**30
STATE_BYTES = 1000


def prompt(first: int, length: int = 5, state_bytes: int = STATE_BYTES) -> Unsaved:
    return Unsaved(tuple(range(first, first + length)), lambda: np.full(state_bytes, first % 251, np.uint8))


def store(folder: Path, identity: str = "smollm2 cells 2048", limit_bytes: int = PLENTY) -> KvDiskCache:
    return KvDiskCache(folder, identity, limit_bytes)


def found(store: KvDiskCache, enough_tokens: int = 10**6, most_prompts: int = 100) -> list[int]:
    """First tokens of what is loaded, in that order."""
    return [kept.tokens[0] for kept in store.load(enough_tokens, most_prompts)]


def the_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def size_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def test_what_was_kept_is_found_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "when needed"
    store(folder).save([prompt(7)])
    (kept,) = store(folder).load(100, 10)
    assert kept.tokens == (7, 8, 9, 10, 11)
    assert np.array_equal(kept.kv, np.full(STATE_BYTES, 7, np.uint8))


def test_the_most_recently_used_come_last_until_they_are_enough(tmp_path: Path) -> None:
    store(tmp_path).save([prompt(30), prompt(20), prompt(10)])
    assert found(store(tmp_path)) == [10, 20, 30]
    assert found(store(tmp_path), most_prompts=2) == [20, 30]
    assert found(store(tmp_path), enough_tokens=10) == [20, 30]
    assert found(store(tmp_path), enough_tokens=4) == [30]
    assert found(store(tmp_path), enough_tokens=0) == []
    assert found(store(tmp_path / "nowhere")) == []


def test_what_is_kept_again_is_not_written_again_but_counts_as_used(tmp_path: Path) -> None:
    def unread() -> KvState:
        raise AssertionError("its state was read")

    store(tmp_path).save([prompt(30), prompt(20), prompt(10)])
    store(tmp_path).save([Unsaved(prompt(10).tokens, unread)])
    assert found(store(tmp_path)) == [20, 30, 10]


def test_a_file_that_another_engine_deletes_meanwhile_is_written_again_and_costs_no_other_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path).save([prompt(10)])
    file, touch = the_file(tmp_path), os.utime

    def deleted_at_last_moment(path: Path, ns: tuple[int, int]) -> None:
        monkeypatch.setattr(os, "utime", touch)
        file.unlink()
        touch(path, ns=ns)

    monkeypatch.setattr(os, "utime", deleted_at_last_moment)
    store(tmp_path).save([prompt(10), prompt(20)])
    assert found(store(tmp_path)) == [20, 10]


def test_loading_alone_is_no_use(tmp_path: Path) -> None:
    store(tmp_path).save([prompt(30), prompt(20)])
    found(store(tmp_path), most_prompts=1)
    assert found(store(tmp_path)) == [20, 30]


def test_prompts_of_other_engines_are_neither_found_nor_touched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store(tmp_path, "smollm2 cells 2048").save([prompt(1)])
    store(tmp_path, "smollm2 cells 4096").save([prompt(2)])
    store(tmp_path, "gemma3 cells 2048").save([prompt(3)])
    assert [found(store(tmp_path, name)) for name in ("smollm2 cells 2048", "gemma3 cells 2048", "other")] == [
        [1],
        [3],
        [],
    ]
    assert caplog.records == []


@pytest.mark.parametrize("at", [0, 5, 9, 26, 34, 44, 76, 80, 95, -1], ids=lambda at: f"byte {at}")
def test_a_byte_that_flipped_is_noticed_and_the_file_deleted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, at: int
) -> None:
    store(tmp_path).save([prompt(7)])
    file = the_file(tmp_path)
    raw = bytearray(file.read_bytes())
    raw[at] ^= 4
    file.write_bytes(raw)
    assert found(store(tmp_path)) == []
    assert len(caplog.records) == 1
    # A head that names another model is believed.
    assert file.exists() == (8 <= at < 24)


@pytest.mark.parametrize("left", [0, 3, 39, 41, 71, 80, -1])
def test_a_file_that_was_cut_off_is_deleted(tmp_path: Path, caplog: pytest.LogCaptureFixture, left: int) -> None:
    store(tmp_path).save([prompt(7)])
    file = the_file(tmp_path)
    file.write_bytes(file.read_bytes()[:left])
    assert found(store(tmp_path)) == []
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert not file.exists()


def test_a_file_of_another_model_under_our_name_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    store(ours).save([prompt(7)])
    store(theirs, "gemma3").save([prompt(7)])
    the_file(ours).write_bytes(the_file(theirs).read_bytes())
    assert found(store(ours)) == []
    assert "belongs to another model" in caplog.text
    assert the_file(ours).exists()


def test_the_folder_holds_no_more_than_the_limit_and_loses_what_was_unused_for_longest(tmp_path: Path) -> None:
    store(tmp_path, "gemma3").save([prompt(1), prompt(2)])
    each = size_bytes(tmp_path) // 2
    limit = 3 * each + 10
    store(tmp_path, limit_bytes=limit).save([prompt(3), prompt(4)])
    assert size_bytes(tmp_path) <= limit
    assert (found(store(tmp_path, "gemma3")), found(store(tmp_path))) == ([1], [4, 3])
    store(tmp_path, limit_bytes=limit).save([prompt(first) for first in (5, 6, 7, 8)])
    assert (found(store(tmp_path, "gemma3")), found(store(tmp_path))) == ([], [7, 6, 5])


def test_one_that_is_too_large_keeps_no_other_out(tmp_path: Path) -> None:
    store(tmp_path, limit_bytes=3000).save([prompt(1), prompt(2, state_bytes=5000), prompt(3)])
    assert found(store(tmp_path)) == [3, 1]


def test_a_smaller_limit_is_kept_from_the_next_save_on(tmp_path: Path) -> None:
    store(tmp_path).save([prompt(first) for first in (1, 2, 3)])
    store(tmp_path, limit_bytes=1500).save([])
    assert found(store(tmp_path)) == [1]


def test_a_full_disk_costs_a_log_line_and_leaves_nothing_half_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    store(tmp_path).save([prompt(1)])
    monkeypatch.setattr(Path, "replace", full)
    store(tmp_path).save([prompt(2), prompt(3)])
    assert "No space left" in caplog.text
    assert len(caplog.records) == 1
    assert found(store(tmp_path)) == [1]
    assert len(list(tmp_path.iterdir())) == 1


class FullDisk:
    """A disk of so many bytes, as the store sees it: in the place of what writes its files."""

    def __init__(self, folder: Path, bytes_in_all: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._bytes_in_all = folder, bytes_in_all
        monkeypatch.setattr(kv_store, "write_all", self._write)

    def _write(self, stream: BinaryIO, contents: bytes | memoryview) -> None:
        room = self._bytes_in_all - size_bytes(self._folder)
        stream.write(contents[:room])
        if len(contents) > room:
            raise OSError(errno.ENOSPC, "No space left on device")


def test_on_a_full_disk_the_prompts_that_fit_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    FullDisk(tmp_path, 3500, monkeypatch)
    long = [prompt(first, length=50, state_bytes=10_000) for first in (100, 200)]
    store(tmp_path).save([prompt(1), long[0], prompt(2), long[1], prompt(3)])
    assert found(store(tmp_path)) == [3, 2, 1]
    assert [record.message for record in caplog.records] == [
        f"2 prompts are not kept in {tmp_path}: No space left on device. Free some space, or set kv_dir to another "
        "folder"
    ]
    assert {file.suffix for file in tmp_path.iterdir()} == {".kv"}


def test_on_a_full_disk_prompts_that_were_used_longer_ago_give_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store(tmp_path).save([prompt(3), prompt(2), prompt(1)])
    FullDisk(tmp_path, size_bytes(tmp_path) + 10, monkeypatch)
    store(tmp_path).save([prompt(5), prompt(4)])
    assert found(store(tmp_path)) == [3, 4, 5]
    assert caplog.records == []


def test_on_a_full_disk_nothing_gives_way_to_what_would_not_fit_even_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path).save([prompt(2), prompt(1)])
    FullDisk(tmp_path, size_bytes(tmp_path) + 10, monkeypatch)
    store(tmp_path).save([prompt(9, length=50, state_bytes=10_000)])
    assert found(store(tmp_path)) == [1, 2]


def test_a_prompt_as_long_as_one_without_room_is_not_even_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unread() -> KvState:
        raise AssertionError("its state was read")

    FullDisk(tmp_path, 500, monkeypatch)
    store(tmp_path).save([prompt(1), Unsaved(prompt(2).tokens, unread)])
    assert found(store(tmp_path)) == []


def test_other_failures_of_the_disk_end_the_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(kv_store, "write_all", broken)
    store(tmp_path).save([prompt(1), prompt(2)])
    assert [record.message for record in caplog.records] == [
        f"Prompts are not kept in {tmp_path}: [Errno 5] Input/output error"
    ]


def test_where_files_may_not_be_so_large_shorter_prompts_are_kept(tmp_path: Path) -> None:
    program = (
        "import resource, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from modelyard.engine.kv.disk import KvDiskCache, Unsaved\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "made = [Unsaved(tuple(range(n)), lambda n=n: np.zeros(100 * n, np.uint8)) for n in (7, 90, 9)]\n"
        "KvDiskCache(Path(sys.argv[1]), 'identity', 10**9).save(made)\n"
        "print([len(kept.tokens) for kept in KvDiskCache(Path(sys.argv[1]), 'identity', 10**9).load(1000, 9)])"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[9, 7]\n"
    assert "1 prompts are not kept" in done.stderr


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_what_is_kept_is_for_its_user_alone(tmp_path: Path, umask: int) -> None:
    folder = tmp_path / "kept"
    before = os.umask(umask)
    try:
        store(folder).save([prompt(1)])
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert the_file(folder).stat().st_mode & 0o777 == 0o600


def test_what_was_kept_for_everybody_is_closed(tmp_path: Path) -> None:
    store(tmp_path).save([prompt(1)])
    tmp_path.chmod(0o755)
    the_file(tmp_path).chmod(0o644)
    store(tmp_path).save([prompt(1)])
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    assert the_file(tmp_path).stat().st_mode & 0o777 == 0o600


def test_a_link_that_was_planted_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "kept"
    victim.write_bytes(b"valuable")
    store(folder).save([prompt(1)])
    file = the_file(folder)
    file.unlink()
    file.symlink_to(victim)
    store(folder).save([prompt(1), prompt(2)])
    assert found(store(folder)) == [2, 1]
    assert victim.read_bytes() == b"valuable"


def test_a_folder_that_cannot_be_made_or_read_costs_a_log_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    store(file).save([prompt(1)])
    assert len(caplog.records) == 1
    assert found(store(file)) == []


def test_a_prompt_that_cannot_be_opened_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store(tmp_path).save([prompt(1)])
    file = the_file(tmp_path)
    file.unlink()
    file.symlink_to(tmp_path)
    assert found(store(tmp_path)) == []
    assert len(caplog.records) == 1


def test_what_an_ended_process_left_half_written_is_swept_up(tmp_path: Path) -> None:
    old, new = tmp_path / "a.part", tmp_path / "b.part"
    for file in (old, new):
        file.write_bytes(b"half")
    os.utime(old, (1, 1))
    store(tmp_path).save([])
    assert [file.name for file in tmp_path.iterdir()] == ["b.part"]


def test_a_file_of_another_format_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path).save([prompt(1)])
    monkeypatch.setattr(kv_store, "_VERSION", 2)
    assert found(store(tmp_path)) == []
    assert the_file(tmp_path).exists()
