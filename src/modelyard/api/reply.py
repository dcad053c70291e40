"""Answers that take time: sent while the client is there, given up within a step when it leaves.

Hot path: ``_Writing._write`` runs once a frame, in one callback for all streams of a step: 5 µs with uvicorn,
without the kernel. A frame is one pre-rendered template around the text.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Coroutine
from typing import Any, Protocol

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from modelyard.api.begin import begin
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
        await self._yard.check(self._request.model, "text")
        with self._yard.submit(self._request) as generation, _Comments(self._yard, generation) as comments:

            def has_news() -> bool:
                return generation.is_settled or comments.is_due

            await generation.until(has_news)
            if generation.is_settled:
                await generation.accepted()
            await send({"type": "http.response.start", "status": 200, "headers": EVENT_STREAM})
            try:
                while not generation.is_settled:
                    await comments.send(send)
                    await generation.until(has_news)
                await generation.accepted()
                await _send(send, self._frames.open(generation))
                await _Writing(generation, self._frames, comments, send).done()
                last = self._frames.close(generation.outcome())
            except ModelyardError as error:
                last = b"data: " + error_body(error) + b"\n\n"
            await send({"type": "http.response.body", "body": last, "more_body": False})


class _Writing:
    """Text of a generation becomes frames, which are sent where the text arrives, while the client keeps up.

    No task wakes for that, which would cost as much as the frame. The task takes over where there is something to wait
    for: a slow client, whose text gathers meanwhile and is one frame, or a comment.
    """

    def __init__(self, generation: Generation, frames: Frames, comments: _Comments, send: Send) -> None:
        self._generation, self._frames, self._comments, self._send = generation, frames, comments, send
        self._sending: Awaitable[None] | None = None

    async def done(self) -> None:
        """Write to the end of the text."""
        while True:
            await self._generation.until(self._write)
            if self._sending is not None:
                await self._sending
                self._sending = None
            elif self._comments.is_due:
                await self._comments.send(self._send)
            else:
                return

    def _write(self) -> bool:
        """Send what has arrived; whether the task is needed."""
        text = self._generation.take()
        if text:
            frame = {"type": "http.response.body", "body": self._frames.text(text), "more_body": True}
            self._sending = begin(self._send(frame))
        return self._sending is not None or self._comments.is_due or self._generation.is_over


class _Comments:
    """What a stream says when it has nothing to say: what it waits for, or else that it lives.

    A timer wakes the stream's task, which alone sends.

    Attributes:
        is_due: ``QUIET_S`` have passed since the last look.
    """

    def __init__(self, yard: Yard, generation: Generation) -> None:
        self.is_due = False
        self._yard, self._generation = yard, generation
        self._quiet_s = 0.0

    def __enter__(self) -> _Comments:
        self._timer = asyncio.get_running_loop().call_later(QUIET_S, self._beat)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    async def send(self, send: Send) -> None:
        """Say what is to be said now, if anything."""
        self.is_due = False
        model = self._generation.model
        if stage := self._yard.stage(model):
            comment = f": {model}: {stage}\n\n".encode()
        elif self._quiet_s >= KEEP_ALIVE_S:
            comment = b": keep-alive\n\n"
        else:
            return
        self._quiet_s = 0.0
        await _send(send, comment)

    def _beat(self) -> None:
        self.is_due = True
        self._quiet_s += QUIET_S
        self._timer = asyncio.get_running_loop().call_later(QUIET_S, self._beat)
        self._generation.wake()


def reply(yard: Yard, request: Request, frames: Frames, *, stream: bool) -> Response:
    """The response that answers ``request``: as server-sent events, or as one JSON body."""
    return (_StreamReply if stream else _WholeReply)(yard, request, frames)


async def _send(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do ``work`` unless the client leaves first, which cancels it. The request's body must have been read."""
    presence = asyncio.timeout(None)
    try:
        async with presence:
            watching = asyncio.create_task(_watch(receive, presence))
            try:
                await work
            finally:
                watching.cancel()
    except TimeoutError:
        if not presence.expired():
            raise


async def _watch(receive: Receive, presence: asyncio.Timeout) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    presence.reschedule(0)
