"""What a server remembers on disk is for its user alone, whatever the umask is and whatever was there before."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from modelyard.config.paths import own_cache
from modelyard.engine.hosts.journal import open_journal
from modelyard.yard.runtime.isolation import IsolationRecords
from modelyard.yard.runtime.trials import TrialOutcome, TrialRecords


@contextmanager
def a_trial() -> Iterator[None]:
    TrialRecords(own_cache() / "trials").note("key", TrialOutcome(None), "small")
    yield


@contextmanager
def a_death() -> Iterator[None]:
    IsolationRecords().note_death("digest", "small", "SIGSEGV", 1.0)
    yield


@contextmanager
def a_journal() -> Iterator[None]:
    journal = open_journal(own_cache() / "journal")
    yield
    journal.close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = os.umask(0o022)
    yield tmp_path / "modelyard"
    os.umask(before)


def modes(folder: Path) -> set[tuple[bool, int]]:
    found = [folder, *folder.rglob("*")]
    return {(path.is_dir(), stat.S_IMODE(path.lstat().st_mode)) for path in found}


@pytest.mark.parametrize(("folder", "noted"), [("trials", a_trial), ("isolation", a_death), ("journal", a_journal)])
@pytest.mark.parametrize("is_there", [False, True])
def test_other_users_cannot_read_it(
    cache: Path, folder: str, noted: Callable[[], AbstractContextManager[None]], is_there: bool
) -> None:
    if is_there:
        (cache / folder).mkdir(parents=True)
    with noted():
        assert modes(cache) == {(True, 0o700), (False, 0o600)}


def test_a_cache_that_cannot_be_used_is_logged(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache.write_text("not a folder")
    with a_trial(), a_death():
        pass
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "The trial of small cannot be remembered",
        "What is known of the deaths of small cannot be remembered",
    ]
