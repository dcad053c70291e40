"""The notifications of changed models, and clients that do not take them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mcp.server.subscriptions import InMemorySubscriptionBus

from modelyard.api.mcp.notices import Notices
from modelyard.api.mcp.resources import uri_of
from modelyard.api.mcp.sessions import Session, Sessions
from modelyard.yard.residency.state import LoadState
from modelyard.yard.stats.status_broadcaster import StatusChange


class Peer:
    """A client of a session that is subscribed to the models ``a`` and ``b``.

    Attributes:
        heard: what it was notified of, and has not been asked about: models, or "list".
        reads: set while it reads.
    """

    def __init__(self, sessions: Sessions, name: str) -> None:
        self.heard = asyncio.Queue[str]()
        self.reads = asyncio.Event()
        self.reads.set()
        assert sessions.reserve() is None
        sessions.add(Session(name, None, 0.0, peer=self, subscriptions={uri_of("a"), uri_of("b")}))

    async def send_notification(self, _: Any) -> None:
        await self.reads.wait()
        self.heard.put_nowait("list")

    async def send_resource_updated(self, uri: str) -> None:
        await self.reads.wait()
        self.heard.put_nowait(uri.rpartition("/")[2])

    async def has_heard(self, *expected: str) -> None:
        async with asyncio.timeout(10):
            assert [await self.heard.get() for _ in expected] == list(expected)


async def test_a_client_that_does_not_read_hears_of_each_change_once_later_and_no_other_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("modelyard.api.mcp.notices.MIN_INTERVAL_S", 0.0)
    sessions = Sessions()
    slow, quick = Peer(sessions, "slow"), Peer(sessions, "quick")
    notices = Notices(sessions, InMemorySubscriptionBus())
    slow.reads.clear()
    for model in ("a", "b", "c", "b"):
        notices.on_change(StatusChange(model, LoadState.LOADED))
        await quick.has_heard("list", *({model} - {"c"}))
    slow.reads.set()
    await slow.has_heard("list", "a", "list", "b")
    notices.on_change(StatusChange("a", LoadState.UNLOADED))
    await slow.has_heard("list", "a")
    await notices.aclose()


async def test_nobody_is_notified_after_the_end() -> None:
    sessions = Sessions()
    peer = Peer(sessions, "slow")
    peer.reads.clear()
    notices = Notices(sessions, InMemorySubscriptionBus())
    notices.on_change(StatusChange("a", LoadState.LOADED))
    await asyncio.sleep(0)
    await notices.aclose()
    peer.reads.set()
    await asyncio.sleep(0)
    assert peer.heard.empty()
