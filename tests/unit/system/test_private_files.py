"""Files that nobody but their user reads, wherever they lie."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from modelyard.system import private_files
from modelyard.system.private_files import (
    is_ours,
    make_private_folder,
    open_private,
    read_private,
    remove_tree,
    write_all,
    write_private,
    writing_private,
)

OTHER = 12345


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch):
    """Gives a file to another user, as this process sees it: without being root, files cannot be given away."""
    given: set[tuple[int, int]] = set()

    def owned(found: os.stat_result) -> bool:
        return (found.st_dev, found.st_ino) not in given

    monkeypatch.setattr(private_files, "_owned", owned)

    def give(path: Path) -> None:
        found = path.lstat()
        given.add((found.st_dev, found.st_ino))

    return give


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture(params=[0, 0o022, 0o777], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_no_umask_opens_or_shuts_what_is_written(tmp_path: Path) -> None:
    make_private_folder(tmp_path / "cache" / "own" / "kept", tmp_path / "cache" / "own")
    write_private(tmp_path / "cache" / "own" / "kept" / "file", b"secret")
    folders = [tmp_path / "cache", tmp_path / "cache" / "own", tmp_path / "cache" / "own" / "kept"]
    assert [mode(folder) for folder in folders] == [0o700] * 3
    assert mode(folders[-1] / "file") == 0o600
    assert read_private(folders[-1] / "file") == b"secret"


def test_folders_that_are_open_to_others_are_closed_from_the_root_on(tmp_path: Path) -> None:
    kept = tmp_path / "own" / "kept"
    kept.mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "own", kept):
        folder.chmod(0o775)
    make_private_folder(kept, tmp_path / "own")
    assert [mode(folder) for folder in (tmp_path, tmp_path / "own", kept)] == [0o775, 0o700, 0o700]


def test_a_folder_for_everybodys_files_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    make_private_folder(tmp_path)
    assert mode(tmp_path) == 0o1777


def test_a_users_own_link_to_another_disk_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir(mode=0o755)
    (tmp_path / "cache").symlink_to(tmp_path / "disk")
    make_private_folder(tmp_path / "cache")
    assert mode(tmp_path / "disk") == 0o700


def test_a_link_that_another_user_made_is_refused(tmp_path: Path, give) -> None:
    (tmp_path / "mine").mkdir(mode=0o755)
    (tmp_path / "cache").symlink_to(tmp_path / "mine")
    give(tmp_path / "cache")
    with pytest.raises(PermissionError, match="name another folder"):
        make_private_folder(tmp_path / "cache")
    assert mode(tmp_path / "mine") == 0o755


def test_a_folder_of_another_user_is_refused_and_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "kept"
    kept.mkdir(mode=0o755)
    mine = os.geteuid()
    # Whoever runs the tests owns it: to this process it looks like somebody else's.
    monkeypatch.setattr(private_files.os, "geteuid", lambda: OTHER)
    if mine == 0:
        kept.chmod(0o777)
    with pytest.raises(PermissionError, match=f"it belongs to user {mine}, not to user {OTHER}; give it to user"):
        make_private_folder(kept)
    assert mode(kept) in (0o755, 0o777)


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("")
    with pytest.raises(NotADirectoryError, match="it is no folder"):
        make_private_folder(tmp_path / "kept")


def test_a_file_that_others_can_read_is_closed_when_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"secret")
    file.chmod(0o644)
    assert read_private(file) == b"secret"
    assert mode(file) == 0o600


def test_links_are_not_read_wherever_they_lead(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"other")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with pytest.raises(PermissionError, match="symbolic link"):
        read_private(tmp_path / "link")


def test_what_another_user_has_planted_is_not_read(tmp_path: Path, give) -> None:
    (tmp_path / "file").write_bytes(b"planted")
    give(tmp_path / "file")
    with pytest.raises(PermissionError, match="belongs to user"):
        read_private(tmp_path / "file")
    assert not is_ours(tmp_path / "file")


def test_a_fifo_holds_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(PermissionError, match="it is no file"):
        read_private(tmp_path / "fifo")


def test_what_is_not_there_is_not_ours_and_not_read(tmp_path: Path) -> None:
    assert not is_ours(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError), open_private(tmp_path / "nothing"):
        pass


def test_a_link_in_the_place_of_a_file_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"valuable")
    (tmp_path / "file").symlink_to(tmp_path / "victim")
    write_private(tmp_path / "file", b"new")
    assert (tmp_path / "victim").read_bytes() == b"valuable"
    assert read_private(tmp_path / "file") == b"new"


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    write_private(tmp_path / "file", b"before")
    with pytest.raises(TypeError), writing_private(tmp_path / "file") as stream:
        write_all(stream, b"half of") or write_all(stream, None)  # type: ignore[func-returns-value, arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert read_private(tmp_path / "file") == b"before"


def test_a_file_that_takes_a_part_at_a_time_gets_all(tmp_path: Path) -> None:
    class Slow:
        taken = b""

        def write(self, contents: memoryview) -> int:
            self.taken += bytes(contents[:3])
            return min(3, len(contents))

    slow = Slow()
    write_all(slow, b"0123456789")  # type: ignore[arg-type]
    assert slow.taken == b"0123456789"


def test_a_tree_goes_and_what_a_link_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "victim" / "inside").mkdir(parents=True)
    (tmp_path / "entry").symlink_to(tmp_path / "victim")
    remove_tree(tmp_path / "entry")
    assert not (tmp_path / "entry").is_symlink()
    assert (tmp_path / "victim" / "inside").exists()
    remove_tree(tmp_path / "victim")
    remove_tree(tmp_path / "victim")
    assert list(tmp_path.iterdir()) == []
