"""Streams of server-sent events about changes, on a broadcaster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from modelyard.api.serving import event_stream
from modelyard.api.serving.event_stream import EventStream
from modelyard.errors import TooManyConnections
from modelyard.yard.stats import broadcast
from modelyard.yard.stats.broadcast import Broadcaster

WAIT_S = 20.0


class Client:
    """A client of one stream, which does not get the changes that begin with "-".

    Attributes:
        sent: what it was sent.
    """

    def __init__(self, changes: Broadcaster[str]) -> None:
        self._stream = EventStream(changes.observer, lambda: b"open ", self._frame)
        self._gone, self._news = asyncio.Event(), asyncio.Condition()
        self.sent: list[dict[str, Any]] = []

    @staticmethod
    def _frame(change: str) -> bytes:
        return b"" if change.startswith("-") else change.encode()

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()

    def leave(self) -> None:
        self._gone.set()

    async def follow(self) -> None:
        async with asyncio.timeout(WAIT_S):
            await self._stream({"type": "http"}, self._receive, self._send)

    async def wait_for(self, text: str) -> None:
        async with asyncio.timeout(WAIT_S), self._news:
            await self._news.wait_for(lambda: text in self.text)

    async def _receive(self) -> Any:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        async with self._news:
            self.sent.append(message)
            self._news.notify_all()


@asynccontextmanager
async def following(changes: Broadcaster[str]) -> AsyncIterator[Client]:
    """A client that has got how things stand; its stream ends in the context."""
    client = Client(changes)
    following = asyncio.create_task(client.follow())
    await client.wait_for("open ")
    yield client
    await following


async def test_it_begins_with_how_things_stand_and_ends_with_the_observers() -> None:
    changes = Broadcaster[str]("changes")
    async with following(changes) as client:
        changes.publish("a")
        changes.publish("-b")
        changes.publish("c")
        assert changes.close() == 1
    assert client.text == "open ac"
    assert [message["type"] for message in client.sent[:1]] == ["http.response.start"]
    assert not client.sent[-1]["more_body"]


async def test_a_client_that_leaves_is_no_observer_any_more() -> None:
    changes = Broadcaster[str]("changes")
    async with following(changes) as client:
        client.leave()
    assert changes.dismiss() == 0


async def test_it_is_kept_alive_while_its_client_gets_none_of_the_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_S", 0.1)
    changes = Broadcaster[str]("changes")

    async def publish() -> None:
        while True:
            changes.publish("-hidden")
            await asyncio.sleep(0.01)

    publishing = asyncio.create_task(publish())
    async with following(changes) as client:
        await client.wait_for(": keep-alive")
        changes.dismiss()
    publishing.cancel()


async def test_too_many_observers_are_refused_before_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "MAX_OBSERVERS", 0)
    client = Client(Broadcaster[str]("all changes"))
    with pytest.raises(TooManyConnections, match="follow all changes"):
        await client.follow()
    assert client.sent == []
