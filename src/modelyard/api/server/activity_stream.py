"""The stream of GET /v1/activity/events: the requests, then their changes.

A reader is sent what has changed since the last frame, whatever happened between the two. So a slow reader costs no
memory, and a fast answer costs two frames a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import Any, Final

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from modelyard.api.serving.streaming import EVENT_STREAM, KEEP_ALIVE_S, send_body, while_connected
from modelyard.yard.stats.broadcast import Observer
from modelyard.yard.stats.request_log import LoggedRequest, RequestLog
from modelyard.yard.stats.request_phases import TokenCounts
from modelyard.yard.yard import Yard

INTERVAL_S: Final = 0.5
"""Shortest time between two frames."""


class ActivityStream(Response):
    """A stream of server-sent events: ``snapshot`` with the last requests, then ``request`` with each that changed.

    Args:
        yard: the models.
        is_visible: whether the client may see a request.
        show: returns a request as the client sees it.
        limit: the most requests of the snapshot.
    """

    def __init__(
        self,
        yard: Yard,
        is_visible: Callable[[LoggedRequest], bool],
        show: Callable[[LoggedRequest], dict[str, Any]],
        limit: int,
    ) -> None:
        super().__init__()
        self._yard, self._limit = yard, limit
        self._changes = _Changes(yard.monitor.recorder.requests, is_visible, show)

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client disconnects or the server stops.

        Raises:
            TooManyConnections: there are too many readers; nothing was sent.
        """
        await while_connected(receive, self._stream(send))

    async def _stream(self, send: Send) -> None:
        clock = asyncio.get_running_loop().time
        with self._yard.monitor.recorder.requests.observer() as observer, self._yard.monitor.ending(observer.end):
            await send({"type": "http.response.start", "status": 200, "headers": EVENT_STREAM})
            await send_body(send, self._changes.snapshot(self._limit))
            sent_at, goes_on = clock(), True
            while goes_on:
                goes_on = await self._wait(observer, sent_at)
                if body := self._changes.frames():
                    await send_body(send, body)
                    sent_at = clock()
                elif clock() - sent_at >= KEEP_ALIVE_S:
                    await send_body(send, b": keep-alive\n\n")
                    sent_at = clock()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _wait(self, observer: Observer[int], sent_at: float) -> bool:
        """Wait until there may be something to send, INTERVAL_S after ``sent_at`` at the earliest.

        Return whether the stream goes on.
        """
        clock = asyncio.get_running_loop().time
        until = clock() + INTERVAL_S if self._changes.has_running else sent_at + KEEP_ALIVE_S
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                try:
                    await anext(observer)
                except StopAsyncIteration:
                    return False
        await asyncio.sleep(max(0.0, sent_at + INTERVAL_S - clock()))
        return True


class _Changes:
    """What a reader has not seen yet.

    Attributes:
        has_running: whether some of the requests that it saw last go on without further steps.
    """

    def __init__(
        self,
        log: RequestLog,
        is_visible: Callable[[LoggedRequest], bool],
        show: Callable[[LoggedRequest], dict[str, Any]],
    ) -> None:
        self._log, self._is_visible, self._show = log, is_visible, show
        self._revision = 0
        # Tokens of the running requests, as the reader has them.
        self._seen: dict[str, TokenCounts] = {}

    @property
    def has_running(self) -> bool:
        return bool(self._seen)

    def snapshot(self, limit: int) -> bytes:
        """Return the frame of how things stand."""
        self._look()
        listed = list(islice(filter(self._is_visible, self._log), limit))
        data = {"object": "list", "data": list(map(self._show, listed))}
        return b"event: snapshot\ndata: " + orjson.dumps(data) + b"\n\n"

    def frames(self) -> bytes:
        """Return the frames of all requests that have changed since the last call; b"" where none has."""
        stepped = list(filter(self._is_visible, self._log.changed_since(self._revision)))
        before = self._seen
        self._look()
        known = {logged.id for logged in stepped}
        moved = (
            logged
            for logged in self._log.running()
            if logged.id not in known and before.get(logged.id) != self._seen.get(logged.id)
        )
        return b"".join(map(self._frame, (*stepped, *moved)))

    def _look(self) -> None:
        self._revision = self._log.revision
        self._seen = {logged.id: logged.tokens for logged in self._log.running() if self._is_visible(logged)}

    def _frame(self, logged: LoggedRequest) -> bytes:
        return b"event: request\ndata: " + orjson.dumps(self._show(logged)) + b"\n\n"
