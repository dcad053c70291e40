"""Converted models: only files of the same user are used."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from modelyard.errors import UnusableModel
from modelyard.hub.sources.converted import ConvertedModels, Entry
from modelyard.system import private_files


def make(models: ConvertedModels, key: str = "key", contents: bytes = b"GGUF") -> Entry:
    with models.locked(key, lambda _: True) as place:
        made = place / "full.partial"
        made.write_bytes(contents)
        return models.complete(place, made, name="model.gguf", source="org/model", label="Q8_0")


def modes(folder: Path) -> dict[str, int]:
    found = [folder, *folder.rglob("*")]
    return {path.relative_to(folder).as_posix(): stat.S_IMODE(path.lstat().st_mode) for path in found}


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch):
    """Gives a file to another user, as this process sees it."""
    given: set[tuple[int, int]] = set()

    def identity(found: os.stat_result) -> tuple[int, int]:
        # What takes a link's place may get its number.
        return found.st_ino, found.st_mtime_ns

    monkeypatch.setattr(private_files, "_owned", lambda found: identity(found) not in given)
    return lambda path: given.add(identity(path.lstat()))


def test_nobody_else_reads_what_was_converted(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        make(ConvertedModels(tmp_path / "converted"))
    finally:
        os.umask(before)
    found = modes(tmp_path / "converted")
    locks = {name for name in found if name.endswith(".lock")}
    assert {found[name] for name in (".", ".locks", "key")} == {0o700}
    assert {found[name] for name in ("key/model.gguf", "key/entry.json", *locks)} == {0o600}


def test_an_entry_that_another_user_has_planted_is_not_used_but_made(tmp_path: Path, give) -> None:
    models = ConvertedModels(tmp_path / "converted")
    make(models, contents=b"planted")
    (tmp_path / "converted" / "key").rename(tmp_path / "elsewhere")
    (tmp_path / "converted" / "key").symlink_to(tmp_path / "elsewhere")
    give(tmp_path / "converted" / "key")
    assert models.find("key") is None
    assert models.list() == []
    assert make(models, contents=b"made here").path.read_bytes() == b"made here"
    assert (tmp_path / "elsewhere" / "model.gguf").read_bytes() == b"planted"


def test_a_file_of_another_user_is_not_used(tmp_path: Path, give) -> None:
    models = ConvertedModels(tmp_path / "converted")
    give(make(models).path)
    assert models.find("key") is None


def test_an_entry_on_another_disk_of_the_same_user_is_used(tmp_path: Path) -> None:
    models = ConvertedModels(tmp_path / "converted")
    entry = make(models)
    entry.path.rename(tmp_path / "on another disk.gguf")
    entry.path.symlink_to(tmp_path / "on another disk.gguf")
    assert models.find("key") == entry


def test_a_cache_of_another_user_is_refused_with_the_way_out(tmp_path: Path, give) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "converted").symlink_to(tmp_path / "theirs")
    give(tmp_path / "converted")
    with pytest.raises(UnusableModel, match="cannot be written: it is a link that user"):
        make(ConvertedModels(tmp_path / "converted"))
