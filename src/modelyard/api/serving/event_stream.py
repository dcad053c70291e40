"""Streams of server-sent events about changes, which last until the client disconnects or the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from modelyard.api.serving.streaming import EVENT_STREAM, KEEP_ALIVE_S, while_connected
from modelyard.yard.stats.broadcast import Observer

_Change = TypeVar("_Change")


class EventStream(Response, Generic[_Change]):
    """A stream of server-sent events: how things stand, then every change.

    Args:
        observed: returns a context with the observer of the changes.
        opening: returns the events of how things stand, when the changes after it are observed already.
        frame: returns the event of a change; b"" where the client does not get it.
    """

    def __init__(
        self,
        observed: Callable[[], AbstractContextManager[Observer[_Change]]],
        opening: Callable[[], bytes],
        frame: Callable[[_Change], bytes],
    ) -> None:
        super().__init__()
        self._observed, self._opening, self._frame = observed, opening, frame

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client disconnects or the observer is ended.

        Raises:
            TooManyConnections: there are too many observers; nothing was sent.
        """
        await while_connected(receive, self._stream(send))

    async def _stream(self, send: Send) -> None:
        clock = asyncio.get_running_loop().time
        with self._observed() as observer:
            body = self._opening()
            await send({"type": "http.response.start", "status": 200, "headers": EVENT_STREAM})
            silent_until = clock() + KEEP_ALIVE_S
            while True:
                if body:
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                    silent_until = clock() + KEEP_ALIVE_S
                try:
                    async with asyncio.timeout_at(silent_until):
                        body = self._frame(await anext(observer))
                except TimeoutError:
                    body = b": keep-alive\n\n"
                except StopAsyncIteration:
                    break
        await send({"type": "http.response.body", "body": b"", "more_body": False})
