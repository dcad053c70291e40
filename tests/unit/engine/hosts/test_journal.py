"""What the engines of a dead server were doing is found by the next one, once."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from modelyard.engine.hosts import journal as journals
from modelyard.engine.hosts.journal import leftover_journals, open_journal
from modelyard.engine.scheduling.engine_table import EngineActivity
from support.table_process import table_process

SERVER = """
journal = open_journal(path)
record = journal.table.claim("smol")
record.name_files("00112233445566778899aabbccddeeff")
record.begin_step([3, 5], 1)
record.begin_reading(8)
idle = journal.table.claim("gemma")
say("computes")
"""


def die(folder: Path, how: str) -> int:
    """Have a server die in ``folder``; its process."""
    with table_process(SERVER + how, folder) as server:
        assert server.heard() == "computes"
        if how == "hear()":
            server.kill()
        else:
            assert server.heard() == ""
        return server.pid


@pytest.mark.parametrize("how", ["hear()", "import ctypes; ctypes.string_at(0)", "import os; os.abort()"])
def test_what_a_server_did_when_it_died_is_found_once(tmp_path: Path, how: str) -> None:
    pid = die(tmp_path, how)
    assert leftover_journals(tmp_path) == (
        EngineActivity("smol", "00112233445566778899aabbccddeeff", pid, "computing", (3, 5), (8,)),
        EngineActivity("gemma", "", pid, "idle", (), ()),
    )
    assert list(tmp_path.iterdir()) == []
    assert leftover_journals(tmp_path) == ()


def test_a_server_that_lives_has_left_nothing(tmp_path: Path) -> None:
    with table_process(SERVER + "hear()", tmp_path) as server:
        assert server.heard() == "computes"
        assert leftover_journals(tmp_path) == ()
        assert len(list(tmp_path.iterdir())) == 1


def test_a_server_that_ends_as_it_should_leaves_nothing(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    record = journal.table.claim("smol")
    journal.close()
    assert list(tmp_path.iterdir()) == []
    # An engine that hangs may wake up after the end.
    record.begin_step([1], 1)
    assert leftover_journals(tmp_path) == ()


def test_two_servers_that_start_at_once_do_not_both_find_it(tmp_path: Path) -> None:
    for _ in range(20):
        die_without_process(tmp_path)
    start = "say('ready'); hear(); say(len(leftover_journals(path))); hear()"
    with table_process(start, tmp_path) as one, table_process(start, tmp_path) as two:
        assert (one.heard(), two.heard()) == ("ready", "ready")
        one.tell()
        two.tell()
        assert int(one.heard()) + int(two.heard()) == 20
    assert list(tmp_path.iterdir()) == []


def die_without_process(folder: Path) -> None:
    """Leave a journal as a dead server does: its lock goes with its process, and here with the file's copy."""
    journal = open_journal(folder)
    journal.table.claim("smol")
    contents = journal.path.read_bytes()
    journal.close()
    journal.path.write_bytes(contents)


def test_while_one_server_looks_at_a_journal_another_does_not(tmp_path: Path) -> None:
    die_without_process(tmp_path)
    inside: list[tuple[EngineActivity, ...]] = []
    assert len(leftover_journals(tmp_path, lambda _: inside.append(leftover_journals(tmp_path)))) == 1
    assert inside == [()]


def test_a_server_that_dies_while_it_notes_a_leftover_leaves_it_to_the_next(tmp_path: Path) -> None:
    die_without_process(tmp_path)

    def fail(_: EngineActivity) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leftover_journals(tmp_path, fail)
    assert len(leftover_journals(tmp_path)) == 1


@pytest.mark.parametrize("contents", [b"", b"x" * 100, b"\xff" * 700_000])
def test_a_file_that_is_no_journal_is_removed_without_a_word(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "7-abc.engines").write_bytes(contents)
    (tmp_path / "other").write_bytes(contents)
    assert leftover_journals(tmp_path) == ()
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert leftover_journals(tmp_path / "none") == ()


def test_a_new_journal_that_was_taken_for_a_leftover_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, locked = journals._lock, []

    def late(descriptor: int) -> bool:
        if not locked:
            for path in tmp_path.iterdir():
                path.unlink()
        locked.append(descriptor)
        return lock(descriptor)

    monkeypatch.setattr(journals, "_lock", late)
    journal = open_journal(tmp_path)
    assert (len(locked), journal.path.exists()) == (2, True)
    journal.close()


def test_a_full_disk_is_found_out_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(journals, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        open_journal(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_journal_can_be_closed_twice(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.close()
    journal.close()
    assert list(tmp_path.iterdir()) == []
