"""How long a stop of a server waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from modelyard.cli.client import stop
from modelyard.cli.client.connection import ServerAddress
from modelyard.errors import ServerUnusable
from modelyard.system.announcements import Announcement
from support.odd_server import free_port


@pytest.mark.parametrize("now", [False, True])
def test_a_server_that_does_not_end_is_given_up_after_the_time_that_the_error_names(
    now: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    def ends_within(timeout_s: float) -> bool:
        waited.append(timeout_s)
        return False

    @contextmanager
    def stubborn(_pid: int, _start: int | None) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(terminate=lambda: True, ends_within=ends_within)

    monkeypatch.setattr(stop, "other_process", stubborn)
    monkeypatch.setattr(stop, "time", SimpleNamespace(monotonic=lambda: sum(waited)))
    with free_port() as port:
        url = f"http://127.0.0.1:{port}"
        found = Announcement(
            url=url, pid=7, start=None, machine="", version="", began=0.0, is_serving=False, config=None
        )
        with pytest.raises(ServerUnusable, match=r"not ended within 60 s. End it with: kill -9 7"):
            stop._stop(ServerAddress(url, None, "announced", found), found, now=now)
    assert sum(waited) == 60.0
