"""Responses that take time to generate, whole or as streams. A disconnect of the client cancels them within a step.

Hot path: ``_StreamWriter._write`` runs once a frame, in one callback for all streams of a step: 5 µs with uvicorn,
without the kernel. A frame is one pre-rendered template around the text.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from modelyard.api.serving.eager import start_eagerly
from modelyard.errors import ModelyardError
from modelyard.protocol.events import Finished
from modelyard.yard.requests.context import current_caller
from modelyard.yard.requests.requests import Request
from modelyard.yard.requests.token_stream import TokenStream
from modelyard.yard.yard import Yard

# Proxies and some clients close a stream that is silent during a long prefill. mistral.rs has the same interval.
KEEP_ALIVE_S = 10.0

# How long a stream waits for its model in silence, and how often it then comments on what it waits for.
QUIET_S = 2.0

EVENT_STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class ChoiceEncoder(Protocol):
    """Encodes one choice of an answer in a dialect, whole or as a stream.

    Attributes:
        headers: HTTP headers of a stream.
    """

    headers: list[tuple[bytes, bytes]]

    def open(self, generation: TokenStream) -> bytes:
        """Return the first frame of the choice. Called once, before all others, also for a whole answer."""

    def text(self, text: str) -> bytes:
        """Return the frame of a piece of text; "" where there is only news of the prompt's progress."""

    def close(self, finished: Finished) -> bytes:
        """Return the last frame of the choice."""

    def end(self, finished: Sequence[Finished]) -> bytes:
        """Return the last frame of a stream, after all choices. Called on the encoder of the first choice."""

    def comment(self, text: str) -> bytes:
        """Return a comment, which clients ignore; b"" if the dialect has no comments."""

    def error(self, error: ModelyardError) -> bytes:
        """Return the last frame of a stream that failed."""

    def choice(self, text: str, finished: Finished) -> Any:
        """Return the choice for a whole answer."""

    def whole(self, choices: Sequence[Any], finished: Sequence[Finished]) -> Any:
        """Return the body of a whole answer. Called on the encoder of the first choice."""


@dataclass(frozen=True, slots=True)
class ChoiceRequest:
    """A request for one choice, and its encoder."""

    request: Request
    encoder: ChoiceEncoder


class _GeneratedResponse(Response, ABC):
    """A response that ``yard`` generates. Errors before its status is sent are raised."""

    def __init__(self, yard: Yard, choices: Sequence[ChoiceRequest]) -> None:
        super().__init__()
        self._yard, self._requests = yard, choices
        self._encoder = choices[0].encoder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Generate and send; a disconnect of the client cancels it."""
        await while_connected(receive, self._respond(scope, receive, send))

    @abstractmethod
    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class _WholeResponse(_GeneratedResponse):
    """The answer as one JSON body."""

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, _ = await whole_answer(self._yard, self._requests)
        await Response(orjson.dumps(body), media_type="application/json")(scope, receive, send)


async def whole_answer(
    yard: Yard, requests: Sequence[ChoiceRequest], watch: Callable[[TokenStream, str], None] | None = None
) -> tuple[Any, list[Finished]]:
    """Return the body of a whole answer with the requested choices, and how each of them ended.

    Args:
        yard: computes the answer.
        requests: one for each choice.
        watch: called with each piece of text of the first choice as it arrives.

    Raises:
        ModelyardError: as ``Yard.generate``.
    """
    choices, finished = [], []
    await yard.checks.check_task(requests[0].request.model, "text")
    with ExitStack() as submitted:
        streams = [submitted.enter_context(yard.submit(choice.request)) for choice in requests]
        await _accepted(streams)
        for choice, stream in zip(requests, streams, strict=True):
            choice.encoder.open(stream)
            text = await (stream.text() if watch is None or stream is not streams[0] else _watched(stream, watch))
            finished.append(stream.outcome())
            choices.append(choice.encoder.choice(text, finished[-1]))
    return requests[0].encoder.whole(choices, finished), finished


async def _watched(stream: TokenStream, watch: Callable[[TokenStream, str], None]) -> str:
    """Return the whole text of ``stream``, whose pieces ``watch`` is called with."""
    pieces: list[str] = []
    async for piece in stream:
        pieces.append(piece)
        watch(stream, piece)
    return "".join(pieces)


class _StreamResponse(_GeneratedResponse):
    """The answer as a stream of frames.

    The status is sent once the engine has accepted the prompt, or else after ``QUIET_S``. Then comments report what the
    stream waits for, and a refusal is an error frame.
    """

    async def _respond(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await self._yard.checks.check_task(self._requests[0].request.model, "text")
        with ExitStack() as submitted:
            generations = [submitted.enter_context(self._yard.submit(choice.request)) for choice in self._requests]
            first = generations[0]
            comments = submitted.enter_context(_Comments(self._yard, first, self._encoder))

            def is_ready() -> bool:
                return first.is_settled or comments.is_due

            await first.until(is_ready)
            if first.is_settled:
                await _accepted(generations)
            await send({"type": "http.response.start", "status": 200, "headers": self._encoder.headers})
            try:
                while not first.is_settled:
                    await comments.send(send)
                    await first.until(is_ready)
                await _accepted(generations)
                last = await self._write(generations, comments, send)
            except ModelyardError as error:
                last = self._encoder.error(error)
            await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _write(self, generations: Sequence[TokenStream], comments: _Comments, send: Send) -> bytes:
        """Write all choices; return the last frame of the stream."""
        opening = [
            choice.encoder.open(generation) for choice, generation in zip(self._requests, generations, strict=True)
        ]
        await send_body(send, b"".join(opening))
        if len(generations) == 1:
            await _StreamWriter(generations[0], self._encoder, comments, send).done()
            finished = generations[0].outcome()
            return self._encoder.close(finished) + self._encoder.end([finished])
        try:
            async with asyncio.TaskGroup() as writing:
                for choice, generation in zip(self._requests, generations, strict=True):
                    # Only the first choice writes comments.
                    own_comments = comments if generation is generations[0] else None
                    writing.create_task(self._write_choice(choice, generation, own_comments, send))
        except* ModelyardError as failed:
            raise first_error(failed) from None
        return self._encoder.end([generation.outcome() for generation in generations])

    async def _write_choice(
        self, choice: ChoiceRequest, generation: TokenStream, comments: _Comments | None, send: Send
    ) -> None:
        await _StreamWriter(generation, choice.encoder, comments, send).done()
        await send_body(send, choice.encoder.close(generation.outcome()))


async def _accepted(generations: Sequence[TokenStream]) -> None:
    """Wait until all generations are accepted; raises the first refusal."""
    for generation in generations:
        await generation.accepted()


def first_error(failed: BaseExceptionGroup[ModelyardError]) -> ModelyardError:
    """Return the first of the errors in a group of groups."""
    error: BaseException = failed
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ModelyardError)
    return error


class _StreamWriter:
    """Writes the text of a generation as frames, in the callback in which the text arrives.

    Waking a task would cost as much as the frame. The task wakes only to wait for a slow client, whose text gathers
    into one frame meanwhile, or to send a comment.
    """

    def __init__(self, generation: TokenStream, encoder: ChoiceEncoder, comments: _Comments | None, send: Send) -> None:
        self._generation, self._encoder, self._comments, self._send = generation, encoder, comments, send
        self._sending: Awaitable[None] | None = None

    async def done(self) -> None:
        """Write the text to its end."""
        while True:
            await self._generation.drive(self._send_arrived)
            if self._sending is not None:
                await self._sending
                self._sending = None
            elif self._comments is not None and self._comments.is_due:
                await self._comments.send(self._send)
            else:
                return

    def _send_arrived(self) -> bool:
        """Send the text that has arrived; return whether the task must wake."""
        text = self._generation.take_text()
        if (text or self._generation.computed is not None) and (body := self._encoder.text(text)):
            frame = {"type": "http.response.body", "body": body, "more_body": True}
            self._sending = start_eagerly(self._send(frame))
        has_comment = self._comments is not None and self._comments.is_due
        return self._sending is not None or has_comment or self._generation.is_over


class _Comments:
    """Comments of a silent stream: what it waits for, or a keep-alive.

    A timer wakes the task of the stream, which sends them.

    Attributes:
        is_due: ``QUIET_S`` have passed since the last call of ``send``.
    """

    def __init__(self, yard: Yard, generation: TokenStream, encoder: ChoiceEncoder) -> None:
        self.is_due = False
        self._yard, self._generation, self._encoder = yard, generation, encoder
        self._quiet_s = 0.0

    def __enter__(self) -> _Comments:
        self._timer = asyncio.get_running_loop().call_later(QUIET_S, self._tick)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    async def send(self, send: Send) -> None:
        """Send the comment that is due, if any."""
        self.is_due = False
        text = comment_text(self._yard, self._generation.model, self._quiet_s)
        if text is not None:
            self._quiet_s = 0.0
            if comment := self._encoder.comment(text):
                await send_body(send, comment)

    def _tick(self) -> None:
        self.is_due = True
        self._quiet_s += QUIET_S
        self._timer = asyncio.get_running_loop().call_later(QUIET_S, self._tick)
        self._generation.wake()


def comment_text(yard: Yard, model: str, quiet_s: float) -> str | None:
    """Return the comment of a stream that waits for ``model`` and has made none for ``quiet_s``; None: not yet one."""
    if stage := yard.health.stage(model):
        return f"{model}: {stage}"
    return "keep-alive" if quiet_s >= KEEP_ALIVE_S else None


def respond(yard: Yard, choices: Sequence[ChoiceRequest], *, stream: bool) -> Response:
    """Return the response with the requested choices, as a stream or as one JSON body."""
    note_streamed(is_streamed=stream)
    return (_StreamResponse if stream else _WholeResponse)(yard, choices)


def note_streamed(*, is_streamed: bool) -> None:
    """Record for those who look at requests whether the answer to the present one is sent while it is computed."""
    if (origin := current_caller().origin) is not None:
        origin.is_streamed = is_streamed


async def send_body(send: Send, body: bytes) -> None:
    """Send a part of the body, which another follows."""
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Run ``work``; a disconnect of the client cancels it. The request's body must have been read."""
    until_disconnect = asyncio.timeout(None)
    try:
        async with until_disconnect:
            watching = asyncio.create_task(_watch(receive, until_disconnect))
            try:
                await work
            finally:
                watching.cancel()
    except TimeoutError:
        if not until_disconnect.expired():
            raise


async def _watch(receive: Receive, until_disconnect: asyncio.Timeout) -> None:
    """Let the timeout expire when the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass
    until_disconnect.reschedule(0)
