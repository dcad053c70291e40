from __future__ import annotations

import json
import os
import stat
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from modelyard.system.announcements import Announcement, announced, announcements, sole_stop, start_of, this_machine

OWN = os.getpid()


def of(url: str = "http://127.0.0.1:1234", pid: int = OWN, **others: object) -> Announcement:
    found = Announcement(
        url=url,
        pid=pid,
        start=start_of(pid),
        machine=this_machine(),
        version="1.0.0",
        began=10.0,
        is_serving=True,
        config="/etc/models.toml",
    )
    return replace(found, **others)  # type: ignore[arg-type]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "run").mkdir(mode=0o700)
    return {"XDG_RUNTIME_DIR": str(tmp_path / "run"), "XDG_STATE_HOME": str(tmp_path / "state")}


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.json"))


def put(environ: dict[str, str], content: bytes, name: str = "1.json") -> Path:
    folder = Path(environ["XDG_RUNTIME_DIR"]) / "modelyard" / "servers"
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def test_a_server_is_found_while_it_runs_and_not_after(environ: dict[str, str]) -> None:
    with announced(of(), environ):
        assert announcements(environ) == [of()]
    assert announcements(environ) == []


def test_a_server_is_found_as_loading_before_it_serves(environ: dict[str, str]) -> None:
    with announced(of(is_serving=False), environ) as announce_serving:
        assert [each.is_serving for each in announcements(environ)] == [False]
        announce_serving()
        assert [each.is_serving for each in announcements(environ)] == [True]
    assert announcements(environ) == []


def test_only_its_user_can_read_an_announcement(environ: dict[str, str], tmp_path: Path) -> None:
    with announced(of(), environ):
        (file,) = files(tmp_path)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_session_without_a_runtime_folder_finds_the_servers_of_one_in_the_state_folder(tmp_path: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": str(tmp_path / "missing"), "XDG_STATE_HOME": str(tmp_path / "state")}
    with announced(of(), environ):
        assert announcements({**environ, "XDG_RUNTIME_DIR": str(tmp_path)}) == [of()]


def test_the_newest_server_is_the_first(environ: dict[str, str]) -> None:
    parent = os.getppid()
    with announced(of(began=1.0), environ), announced(of("http://127.0.0.1:2", pid=parent, began=2.0), environ):
        assert [each.pid for each in announcements(environ)] == [parent, OWN]


@pytest.mark.parametrize("stale", [{"pid": 2**22 + 7}, {"start": 1}], ids=["ended", "id used again"])
def test_the_file_of_a_server_that_was_killed_is_removed(
    environ: dict[str, str], tmp_path: Path, stale: dict[str, int]
) -> None:
    with announced(replace(of(), **stale), environ):  # type: ignore[arg-type]
        assert announcements(environ) == []
        assert files(tmp_path) == []


def test_a_server_of_another_machine_or_container_is_neither_found_nor_removed(
    environ: dict[str, str], tmp_path: Path
) -> None:
    with announced(of(machine="elsewhere", pid=2**22 + 7), environ):
        assert announcements(environ) == []
        assert len(files(tmp_path)) == 1


def test_a_server_that_was_started_again_keeps_its_file_when_the_old_one_ends(environ: dict[str, str]) -> None:
    new = of(began=20.0)
    with announced(of(began=10.0), environ):
        old = announced(new, environ)
        old.__enter__()
    assert announcements(environ) == [new]
    old.__exit__(None, None, None)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"url": "http://127.0.0.1:1", "pid": true}',
        json.dumps({"url": "file:///etc/passwd", "pid": OWN, "start": None, "machine": "", "version": ""}).encode(),
    ],
    ids=["empty", "a list", "no fields", "no text", "deep", "a wrong type", "another scheme"],
)
def test_a_file_that_is_no_announcement_is_passed_over(environ: dict[str, str], content: bytes) -> None:
    put(environ, content)
    assert announcements(environ) == []


def test_a_link_is_not_followed(environ: dict[str, str], tmp_path: Path) -> None:
    with announced(of(), environ):
        (file,) = files(tmp_path)
        target = tmp_path / "elsewhere"
        file.rename(target)
        file.symlink_to(target)
        assert announcements(environ) == []


def test_fields_of_a_later_version_are_passed_over(environ: dict[str, str]) -> None:
    with announced(of(), environ):
        (file,) = files(Path(environ["XDG_RUNTIME_DIR"]))
        file.write_text(json.dumps({**json.loads(file.read_text()), "colour": "blue"}))
        assert announcements(environ) == [of()]


def test_a_server_without_a_writable_folder_serves_unannounced(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environ = {"XDG_RUNTIME_DIR": str(tmp_path / "file"), "XDG_STATE_HOME": str(tmp_path / "file")}
    with announced(of(), environ) as announce_serving:
        announce_serving()
        assert announcements(environ) == []


def test_an_id_that_no_process_has_is_that_of_a_server_that_has_ended(environ: dict[str, str]) -> None:
    path = put(environ, json.dumps(asdict(of(pid=10**30, start=None))).encode())
    assert announcements(environ) == []
    assert not path.exists()


def test_of_several_programs_that_stop_a_server_one_is_the_sole_one(environ: dict[str, str]) -> None:
    with announced(of(), environ):
        with sole_stop(of(), environ) as first, sole_stop(of(), environ) as second:
            assert (first, second) == (True, False)
            with sole_stop(of(pid=1), environ) as of_another:
                assert of_another
        with sole_stop(of(), environ) as later:
            assert later
    assert not list(Path(environ["XDG_RUNTIME_DIR"]).rglob("*.stop"))


def test_without_a_folder_each_is_taken_for_the_sole_one(tmp_path: Path) -> None:
    nowhere = {"XDG_RUNTIME_DIR": str(tmp_path / "no"), "XDG_STATE_HOME": str(tmp_path / "no")}
    with sole_stop(of(), nowhere) as first, sole_stop(of(), nowhere) as second:
        assert first
        assert second
