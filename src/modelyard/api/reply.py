"""Answers that take time: sent while the client is there, given up within a step when it leaves.

Hot path: ``_StreamReply`` runs once a wake-up of a stream. A frame is one pre-rendered template around the text.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, Protocol

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from modelyard.api.errors import error_body
from modelyard.engine.messages import Finished
from modelyard.errors import ModelyardError
from modelyard.yard.generation import Generation
from modelyard.yard.yard import Request, Yard

# A silent stream (a long prefill) is closed by proxies and some clients; the reference comments at the same interval.
KEEP_ALIVE_S = 10.0

# How long a stream waits for its model in silence, and how often it then says what it waits for.
QUIET_S = 2.0

EVENT_STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Frames(Protocol):
    """How a dialect writes one answer, whole or as a stream."""

    def open(self, generation: Generation) -> bytes:
        """What a stream begins with. Called once, first, also for a whole answer."""

    def text(self, text: str) -> bytes:
        """A piece of the answer."""

    def close(self, finished: Finished) -> bytes:
        """What a stream ends with."""

    def whole(self, text: str, finished: Finished) -> dict[str, Any]:
        """The body of a whole answer."""


class _Reply(Response, ABC):
    """An answer of ``yard`` to ``request``, written by ``frames``. Errors before its status is sent are raised."""

    def __init__(self, yard: Yard, request: Request, frames: Frames) -> None:
        super().__init__()
        self._yard, self._request, self._frames = yard, request, frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Generate and send, unless the client leaves."""
        await while_connected(receive, self._answer(scope, receive, send))

    @abstractmethod
    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class _WholeReply(_Reply):
    """The answer as one JSON body."""

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._yard.generate(self._request) as generation:
            self._frames.open(generation)
            text = await generation.text()
        assert generation.finished is not None
        body = orjson.dumps(self._frames.whole(text, generation.finished))
        await Response(body, media_type="application/json")(scope, receive, send)


class _StreamReply(_Reply):
    """The answer as server-sent events.

    The status is sent once the model is there and has accepted the prompt. Where that takes longer, it is sent before,
    and comments say what is being waited for; a refusal is then an error frame.
    """

    async def _answer(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        with self._yard.submit(self._request) as generation:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(QUIET_S):
                    await generation.accepted()
            await send({"type": "http.response.start", "status": 200, "headers": EVENT_STREAM})
            comments = asyncio.create_task(self._comment(generation.model, send))
            try:
                await generation.accepted()
                await _send(send, self._frames.open(generation))
                async for text in generation:
                    await _send(send, self._frames.text(text))
                assert generation.finished is not None
                last = self._frames.close(generation.finished)
            except ModelyardError as error:
                last = b"data: " + error_body(error) + b"\n\n"
            finally:
                comments.cancel()
            await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _comment(self, model: str, send: Send) -> None:
        """Say what the stream waits for, while its model is not there; else only that it lives."""
        quiet_s = 0.0
        while True:
            stage = self._yard.stage(model)
            if stage:
                await _send(send, f": {model}: {stage}\n\n".encode())
                quiet_s = 0.0
            elif quiet_s >= KEEP_ALIVE_S:
                await _send(send, b": keep-alive\n\n")
                quiet_s = 0.0
            await asyncio.sleep(QUIET_S)
            quiet_s += QUIET_S


def reply(yard: Yard, request: Request, frames: Frames, *, stream: bool) -> Response:
    """The response that answers ``request``: as server-sent events, or as one JSON body."""
    return (_StreamReply if stream else _WholeReply)(yard, request, frames)


async def _send(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do ``work`` unless the client leaves first, which cancels it. The request's body must have been read."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_disconnect(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        leaving.cancel()
        working.cancel()
        await asyncio.gather(leaving, working, return_exceptions=True)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
