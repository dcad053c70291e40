"""Answers that take time: sent while the client is there, given up within a step when it leaves.

Hot path: ``_Writing._write`` runs once a frame, in one callback for all streams of a step: 5 µs with uvicorn,
without the kernel. A frame is one pre-rendered template around the text.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from modelyard.api.serving.eager import begin
from modelyard.errors import ModelyardError
from modelyard.protocol.events import Finished
from modelyard.yard.requests.generation import TokenStream
from modelyard.yard.requests.requests import Request
from modelyard.yard.yard import Yard

# A silent stream (a long prefill) is closed by proxies and some clients; the reference comments at the same interval.
KEEP_ALIVE_S = 10.0

# How long a stream waits for its model in silence, and how often it then says what it waits for.
QUIET_S = 2.0

EVENT_STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class Frames(Protocol):
    """How a dialect writes one choice of an answer, whole or as a stream.

    Attributes:
        headers: of a stream.
    """

    headers: list[tuple[bytes, bytes]]

    def open(self, generation: TokenStream) -> bytes:
        """What the choice begins with in a stream. Called once, first, also for a whole answer."""

    def text(self, text: str) -> bytes:
        """A piece of the choice."""

    def close(self, finished: Finished) -> bytes:
        """What the choice ends with in a stream."""

    def end(self, finished: Sequence[Finished]) -> bytes:
        """What a stream ends with, behind all choices. Asked of the first choice's frames."""

    def comment(self, text: str) -> bytes:
        """A line in a stream that clients pass over; b"" where the dialect has none."""

    def error(self, error: ModelyardError) -> bytes:
        """The last frame of a stream that failed."""

    def choice(self, text: str, finished: Finished) -> Any:
        """The choice in a whole answer."""

    def whole(self, choices: Sequence[Any], finished: Sequence[Finished]) -> Any:
        """The body of a whole answer. Asked of the first choice's frames."""


@dataclass(frozen=True, slots=True)
class ChoiceRequest:
    """One choice that is asked for, and how it is written."""

    request: Request
    frames: Frames


class _Reply(Response, ABC):
    """An answer of ``yard``. Errors before its status is sent are raised."""

    def __init__(self, yard: Yard, choices: Sequence[ChoiceRequest]) -> None:
        super().__init__()
        self._yard, self._asks = yard, choices
        self._frames = choices[0].frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Generate and send, unless the client leaves."""
        await while_connected(receive, self._answer(scope, receive, send))

    @abstractmethod
    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class _WholeReply(_Reply):
    """The answer as one JSON body."""

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, _ = await whole_answer(self._yard, self._asks)
        await Response(orjson.dumps(body), media_type="application/json")(scope, receive, send)


async def whole_answer(yard: Yard, requests: Sequence[ChoiceRequest]) -> tuple[Any, list[Finished]]:
    """Return the body of a whole answer with the requested choices, and how each of them ended.

    Raises:
        ModelyardError: as ``Yard.generate``.
    """
    choices, finished = [], []
    await yard.check(requests[0].request.model, "text")
    with ExitStack() as submitted:
        streams = [submitted.enter_context(yard.submit(choice.request)) for choice in requests]
        await _accepted(streams)
        for choice, stream in zip(requests, streams, strict=True):
            choice.frames.open(stream)
            text = await stream.text()
            finished.append(stream.outcome())
            choices.append(choice.frames.choice(text, finished[-1]))
    return requests[0].frames.whole(choices, finished), finished


class _StreamReply(_Reply):
    """The answer as a stream of frames.

    The status is sent once the model is there and has accepted the prompt. Where that takes longer, it is sent before,
    and comments say what is being waited for; a refusal is then an error frame.
    """

    async def _answer(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await self._yard.check(self._asks[0].request.model, "text")
        with ExitStack() as asked:
            generations = [asked.enter_context(self._yard.submit(choice.request)) for choice in self._asks]
            first = generations[0]
            comments = asked.enter_context(_Comments(self._yard, first, self._frames))

            def has_news() -> bool:
                return first.is_settled or comments.is_due

            await first.until(has_news)
            if first.is_settled:
                await _accepted(generations)
            await send({"type": "http.response.start", "status": 200, "headers": self._frames.headers})
            try:
                while not first.is_settled:
                    await comments.send(send)
                    await first.until(has_news)
                await _accepted(generations)
                last = await self._write(generations, comments, send)
            except ModelyardError as error:
                last = self._frames.error(error)
            await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _write(self, generations: Sequence[TokenStream], comments: _Comments, send: Send) -> bytes:
        """Write all choices; what the stream ends with."""
        opening = [choice.frames.open(generation) for choice, generation in zip(self._asks, generations, strict=True)]
        await _send(send, b"".join(opening))
        if len(generations) == 1:
            await _Writing(generations[0], self._frames, comments, send).done()
            finished = generations[0].outcome()
            return self._frames.close(finished) + self._frames.end([finished])
        try:
            async with asyncio.TaskGroup() as writing:
                for choice, generation in zip(self._asks, generations, strict=True):
                    # The first speaks for all while nothing is said.
                    says = comments if generation is generations[0] else None
                    writing.create_task(self._write_choice(choice, generation, says, send))
        except* ModelyardError as failed:
            raise _first(failed) from None
        return self._frames.end([generation.outcome() for generation in generations])

    async def _write_choice(
        self, choice: ChoiceRequest, generation: TokenStream, comments: _Comments | None, send: Send
    ) -> None:
        await _Writing(generation, choice.frames, comments, send).done()
        await _send(send, choice.frames.close(generation.outcome()))


async def _accepted(generations: Sequence[TokenStream]) -> None:
    """Wait until all are accepted: where one is refused, nothing is generated for the others."""
    for generation in generations:
        await generation.accepted()


def _first(failed: BaseExceptionGroup[ModelyardError]) -> ModelyardError:
    error: BaseException = failed
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ModelyardError)
    return error


class _Writing:
    """Text of a generation becomes frames, which are sent where the text arrives, while the client keeps up.

    No task wakes for that, which would cost as much as the frame. The task takes over where there is something to wait
    for: a slow client, whose text gathers meanwhile and is one frame, or a comment.
    """

    def __init__(self, generation: TokenStream, frames: Frames, comments: _Comments | None, send: Send) -> None:
        self._generation, self._frames, self._comments, self._send = generation, frames, comments, send
        self._sending: Awaitable[None] | None = None

    async def done(self) -> None:
        """Write to the end of the text."""
        while True:
            await self._generation.until(self._write)
            if self._sending is not None:
                await self._sending
                self._sending = None
            elif self._comments is not None and self._comments.is_due:
                await self._comments.send(self._send)
            else:
                return

    def _write(self) -> bool:
        """Send what has arrived; whether the task is needed."""
        text = self._generation.take_text()
        if text and (body := self._frames.text(text)):
            frame = {"type": "http.response.body", "body": body, "more_body": True}
            self._sending = begin(self._send(frame))
        has_comment = self._comments is not None and self._comments.is_due
        return self._sending is not None or has_comment or self._generation.is_over


class _Comments:
    """What a stream says when it has nothing to say: what it waits for, or else that it lives.

    A timer wakes the stream's task, which alone sends.

    Attributes:
        is_due: ``QUIET_S`` have passed since the last look.
    """

    def __init__(self, yard: Yard, generation: TokenStream, frames: Frames) -> None:
        self.is_due = False
        self._yard, self._generation, self._frames = yard, generation, frames
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
            comment = self._frames.comment(f"{model}: {stage}")
        elif self._quiet_s >= KEEP_ALIVE_S:
            comment = self._frames.comment("keep-alive")
        else:
            return
        self._quiet_s = 0.0
        if comment:
            await _send(send, comment)

    def _beat(self) -> None:
        self.is_due = True
        self._quiet_s += QUIET_S
        self._timer = asyncio.get_running_loop().call_later(QUIET_S, self._beat)
        self._generation.wake()


def reply(yard: Yard, choices: Sequence[ChoiceRequest], *, stream: bool) -> Response:
    """The response that answers with the choices that are asked for: as a stream, or as one JSON body."""
    return (_StreamReply if stream else _WholeReply)(yard, choices)


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
