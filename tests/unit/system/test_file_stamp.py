"""A file is told from what comes in its place, and from what is written over it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from modelyard.system.file_stamp import FileStamp, change, first_changed, stamps_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"weights")
    return path


def now(path: Path) -> FileStamp | None:
    return FileStamp.of(path) if path.exists() else None


def cut_off(file: Path) -> None:
    os.truncate(file, 3)


def write_over(file: Path) -> None:
    # As cp does: the same file, and a later time; a coarse clock may have the same.
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))


def append(file: Path) -> None:
    with file.open("ab") as stream:
        stream.write(b"more")


@pytest.mark.parametrize("spoil", [cut_off, write_over, append])
def test_what_is_written_into_a_file_is_noticed(file: Path, spoil) -> None:
    before = FileStamp.of(file)
    spoil(file)
    assert change(before, now(file)) == "written over"
    assert first_changed([before]) == file


def rename(file: Path) -> None:
    (file.parent / "new").write_bytes(b"weights")
    os.utime(file.parent / "new", ns=(0, file.stat().st_mtime_ns + 1))
    (file.parent / "new").replace(file)


@pytest.mark.parametrize("replace", [rename, Path.unlink])
def test_a_file_that_is_replaced_was_not_written_over(file: Path, replace) -> None:
    before = FileStamp.of(file)
    replace(file)
    assert change(before, now(file)) == "replaced"
    assert first_changed([before]) == file


def test_a_link_is_followed_and_says_what_it_leads_to(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    before = FileStamp.of(link)
    (tmp_path / "other").write_bytes(b"weights")
    assert change(before, now(link)) == "none"
    link.unlink()
    link.symlink_to(tmp_path / "other")
    assert change(before, now(link)) == "replaced"


def test_the_same_contents_under_another_number_are_no_change_for_who_reads_them_anew(file: Path) -> None:
    before = FileStamp.of(file)
    shutil.copy2(file, file.parent / "copy")
    (file.parent / "copy").replace(file)
    assert change(before, now(file)) == "replaced"
    assert first_changed([before]) is None


def test_reading_a_file_or_its_rights_changes_nothing(file: Path) -> None:
    stamps = stamps_of([file])
    file.read_bytes()
    file.chmod(0o600)
    assert first_changed(stamps) is None
