"""Answers of agents, whole or as streams. A disconnect of the client cancels the model and the tools."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from modelyard.agent.agent import Agent
from modelyard.agent.events import (
    AgentEvent,
    AnswerEnded,
    ApprovalReturned,
    CallBegan,
    CallEnded,
    CallProgressed,
    OutputArrived,
    RoundBegan,
    ToolEvent,
)
from modelyard.agent.loop import run
from modelyard.agent.request import AgentRequest
from modelyard.api.serving.agent_encoder import AgentAnswer, AgentEncoder, RoundMessage
from modelyard.api.serving.streaming import (
    QUIET_S,
    comment_text,
    first_error,
    note_streamed,
    send_body,
    while_connected,
)
from modelyard.errors import ModelyardError
from modelyard.protocol.deltas import Delta, Message, fold
from modelyard.protocol.events import Finished
from modelyard.yard.yard import Yard


@dataclass(frozen=True, slots=True)
class AgentChoice:
    """A request for one choice that an agent answers, and its encoder."""

    request: AgentRequest
    encoder: AgentEncoder


def respond_agent(
    yard: Yard,
    agent: Agent,
    choices: Sequence[AgentChoice],
    *,
    stream: bool,
    connections: AsyncExitStack | None = None,
) -> Response:
    """Return the response with the requested choices, as a stream or as one JSON body.

    Args:
        yard: the models.
        agent: what the answers of agents share.
        choices: the requests.
        stream: whether it is a stream.
        connections: closed once the answer has ended, such as connections to MCP servers that the request names.
    """
    note_streamed(is_streamed=stream)
    return (_AgentStream if stream else _WholeAgentAnswer)(yard, agent, choices, connections or AsyncExitStack())


class _AgentResponse(Response, ABC):
    """A response that agents generate. Errors before its status is sent are raised."""

    def __init__(self, yard: Yard, agent: Agent, choices: Sequence[AgentChoice], connections: AsyncExitStack) -> None:
        super().__init__()
        self._yard, self._agent, self._choices, self._connections = yard, agent, choices, connections
        self._encoder = choices[0].encoder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Generate and send; a disconnect of the client cancels it."""
        async with self._connections:
            await while_connected(receive, self._respond(scope, receive, send))

    @abstractmethod
    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    def _events(self, choice: AgentChoice) -> AsyncGenerator[AgentEvent, None]:
        return run(self._yard, choice.request, self._agent)


class _WholeAgentAnswer(_AgentResponse):
    """The answer as one JSON body."""

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, _ = await whole_agent_answer(self._yard, self._agent, self._choices)
        await Response(orjson.dumps(body), media_type="application/json")(scope, receive, send)


async def whole_agent_answer(
    yard: Yard, agent: Agent, choices: Sequence[AgentChoice], watch: Callable[[AgentEvent], None] | None = None
) -> tuple[Any, list[Finished]]:
    """Return the body of a whole answer with the requested choices, and how each of them ended.

    Args:
        yard: the models.
        agent: what the answers of agents share.
        choices: the requests.
        watch: called with each event of the first choice as it happens.

    Raises:
        ModelyardError: as ``Yard.generate``.
    """
    if len(choices) == 1:
        answers = [await _answer(yard, agent, choices[0], watch)]
    else:
        try:
            async with asyncio.TaskGroup() as answering:
                tasks = [
                    answering.create_task(_answer(yard, agent, choice, watch if choice is choices[0] else None))
                    for choice in choices
                ]
        except* ModelyardError as failed:
            raise first_error(failed) from None
        answers = [task.result() for task in tasks]
    finished = [answer.finished for answer in answers]
    encoded = [choice.encoder.agent_choice(answer) for choice, answer in zip(choices, answers, strict=True)]
    return choices[0].encoder.whole(encoded, finished), finished


async def _answer(
    yard: Yard, agent: Agent, choice: AgentChoice, watch: Callable[[AgentEvent], None] | None
) -> AgentAnswer:
    """Return the answer to one choice; its encoder is open."""
    parts: list[RoundMessage | ToolEvent] = []
    deltas: list[Delta] = []
    present = 0

    def end_message() -> None:
        if (message := fold(deltas)) != Message():
            parts.append(RoundMessage(message, present))
        deltas.clear()

    async with aclosing(run(yard, choice.request, agent)) as events:
        async for event in events:
            if watch is not None:
                watch(event)
            match event:
                case RoundBegan(0, generation):
                    choice.encoder.open(generation)
                case RoundBegan(number, generation):
                    end_message()
                    present = number
                    choice.encoder.next_round(generation)
                case OutputArrived(new):
                    deltas += new
                case CallBegan() | CallEnded() | ApprovalReturned():
                    end_message()
                    parts.append(event)
                case AnswerEnded(finished, calls_client):
                    end_message()
                    return AgentAnswer(tuple(parts), finished, calls_client)
    raise AssertionError("an answer ends with AnswerEnded")


class _AgentStream(_AgentResponse):
    """The answer as a stream of frames.

    The status is sent once the model has accepted the prompt of every choice, or else after ``QUIET_S``. Then comments
    report what the stream waits for, and a refusal is an error frame.
    """

    async def _respond(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        opened = asyncio.Event()
        writers = [_ChoiceWriter(choice.encoder, self._events(choice), send, opened) for choice in self._choices]
        tasks = [asyncio.create_task(writer.write()) for writer in writers]
        try:
            await _first_of(tasks, writers)
            await send({"type": "http.response.start", "status": 200, "headers": self._encoder.headers})
            opened.set()
            try:
                await self._commented(tasks, send)
                last = self._encoder.end([task.result() for task in tasks])
            except ModelyardError as error:
                last = self._encoder.error(error)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _commented(self, tasks: Sequence[asyncio.Task[Finished]], send: Send) -> None:
        """Wait until all choices are written, and comment on what the stream waits for meanwhile.

        Raises:
            ModelyardError: one of them failed.
        """
        model = self._yard.configured(self._choices[0].request.request.model).id
        quiet_s = 0.0
        running = set(tasks)
        while running:
            done, running = await asyncio.wait(running, timeout=QUIET_S, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
            if done:
                continue
            quiet_s += QUIET_S
            if (text := comment_text(self._yard, model, quiet_s)) is not None:
                quiet_s = 0.0
                if comment := self._encoder.comment(text):
                    await send_body(send, comment)


async def _first_of(tasks: Sequence[asyncio.Task[Finished]], writers: Sequence[_ChoiceWriter]) -> None:
    """Wait until all choices have begun, for at most ``QUIET_S``.

    Raises:
        ModelyardError: one of them was refused.
    """
    begun = asyncio.create_task(_all_begun(writers))
    waited: list[asyncio.Task[Any]] = [begun, *tasks]
    try:
        await asyncio.wait(waited, timeout=QUIET_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        begun.cancel()
    for task in tasks:
        if task.done():
            task.result()


async def _all_begun(writers: Sequence[_ChoiceWriter]) -> None:
    for writer in writers:
        await writer.begun.wait()


class _ChoiceWriter:
    """Writes one choice as frames.

    Text that arrives while a client is slow gathers in the stream of the model, and becomes one frame.

    Args:
        encoder: makes the frames.
        events: what happens.
        send: sends a frame.
        opened: set once the status is sent; no frame is sent before.

    Attributes:
        begun: set once the model has accepted the prompt of the first round.
    """

    def __init__(
        self,
        encoder: AgentEncoder,
        events: AsyncGenerator[AgentEvent, None],
        send: Send,
        opened: asyncio.Event,
    ) -> None:
        self.begun = asyncio.Event()
        self._encoder, self._events, self._send, self._opened = encoder, events, send, opened
        # Calls that the client has approved run before the first round, which the encoder needs to begin.
        self._early: list[ToolEvent] = []

    async def write(self) -> Finished:
        """Write the choice, and return how it ended.

        Raises:
            ModelyardError: it was refused, or failed.
        """
        async with aclosing(self._events) as events:
            async for event in events:
                if frames := self._frames(event):
                    await self._opened.wait()
                    await send_body(self._send, frames)
                if isinstance(event, AnswerEnded):
                    return event.finished
        raise AssertionError("an answer ends with AnswerEnded")

    def _frames(self, event: AgentEvent) -> bytes:
        match event:
            case RoundBegan(_, generation) if not self.begun.is_set():
                self.begun.set()
                opening = self._encoder.open(generation)
                return opening + b"".join(map(self._encoder.tool_event, self._early))
            case RoundBegan(_, generation):
                return self._encoder.next_round(generation)
            case OutputArrived(deltas):
                return self._encoder.deltas(deltas)
            case AnswerEnded(finished, calls_client):
                return self._encoder.close_agent(finished, calls_client=calls_client)
            case _ if not self.begun.is_set():
                if not isinstance(event, CallProgressed):
                    self._early.append(event)
                return b""
        return self._encoder.tool_event(event)
