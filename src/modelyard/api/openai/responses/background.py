"""Responses that are generated in the background: the HTTP request is answered before they are done."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine, Hashable
from contextlib import AsyncExitStack, ExitStack
from contextvars import Context, copy_context
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Message

from modelyard.agent.agent import Agent
from modelyard.agent.request import AgentRequest
from modelyard.api.openai.responses.encoder import ResponseEncoder
from modelyard.api.openapi.answers_responses import ResponseObject
from modelyard.api.request_context import IGNORED_HEADER, REPAIRED_HEADER, listed
from modelyard.api.serving.agent import AgentChoice, respond_agent
from modelyard.api.serving.request_memory import LEASE
from modelyard.errors import ModelyardError, QueueFull
from modelyard.system.owner_shares import may_take
from modelyard.yard.requests.account import MeteredRequest
from modelyard.yard.requests.context import CALLER, current_caller
from modelyard.yard.requests.requests import Request
from modelyard.yard.requests.token_stream import TokenStream
from modelyard.yard.yard import Yard

MAX_IN_BACKGROUND: Final = 64

MAX_END_S: Final = 2.0
"""How long the end of a server waits for responses in the background to end."""

logger = logging.getLogger(__name__)


class Background:
    """The responses that are being generated in the background, as one task each."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self._running: dict[str, asyncio.Task[None]] = {}
        self._responses: dict[str, ResponseObject] = {}
        self._held: Counter[Hashable] = Counter()

    def start(self, request: Request, encoder: ResponseEncoder) -> None:
        """Start to generate a response.

        Raises:
            QueueFull: too many responses are being generated, in all or for this caller.
            RateLimited, ConcurrencyLimited: the caller has reached its limits.
        """
        self._check_room(encoder)
        context, resources = _detached(), ExitStack()
        generation = context.run(resources.enter_context, self._yard.submit(request))
        self._start(encoder, self._run(generation, encoder), context, resources)

    def start_agent(
        self, agent: Agent, asked: AgentRequest, encoder: ResponseEncoder, connections: AsyncExitStack
    ) -> None:
        """Start to generate a response whose model calls tools of the server.

        Args:
            agent: what the answers of agents share.
            asked: the request.
            encoder: of the response.
            connections: taken over, and closed once the response is done.

        Raises:
            QueueFull, RateLimited, ConcurrencyLimited: as for ``start``.
            InvalidRequest: the caller may not have answers that are so long.
        """
        self._check_room(encoder)
        # The task asks again, but what is refused already must not look as if it were on its way.
        current_caller().check_answer(asked.request.max_tokens)
        with self._yard.rounds(asked.request.model):
            pass
        choice = AgentChoice(asked, encoder)
        response = respond_agent(self._yard, agent, [choice], stream=True, connections=connections.pop_all())
        self._start(encoder, _run_agent(response, encoder), _detached(), ExitStack())

    def _check_room(self, encoder: ResponseEncoder) -> None:
        model, owner = encoder.response["model"], current_caller().place_owner
        own, total = self._held[owner], self._held.total()
        if total >= MAX_IN_BACKGROUND:
            raise QueueFull(model, total)
        if owner is not None and not may_take(own, total, MAX_IN_BACKGROUND):
            raise QueueFull(model, own, of_key=True)

    def _start(
        self, encoder: ResponseEncoder, work: Coroutine[Any, Any, None], context: Context, resources: ExitStack
    ) -> None:
        """Start ``work``, which generates the response, in ``context``; ``resources`` are closed when it is done."""
        if (lease := LEASE.get()) is not None:
            # The images and the parsed body stay in memory until the response is done.
            resources.enter_context(lease.hand_over())
        owner, response_id = current_caller().place_owner, encoder.response["id"]
        self._responses[response_id] = encoder.response
        task = self._running[response_id] = asyncio.create_task(work, name=response_id, context=context)
        self._held[owner] += 1
        # A callback, because a task that is cancelled before its first step runs no ``finally``.
        task.add_done_callback(lambda _: self._end(response_id, owner, resources))

    def _end(self, response_id: str, owner: Hashable, resources: ExitStack) -> None:
        self._running.pop(response_id, None)
        self._responses.pop(response_id, None)
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]
        resources.close()

    def response(self, response_id: str) -> ResponseObject | None:
        """Return a response as far as it has been generated; None: it is not being generated."""
        return self._responses.get(response_id)

    def cancel(self, response_id: str) -> bool:
        """Cancel a response; return whether it was being generated."""
        self._responses.pop(response_id, None)
        task = self._running.get(response_id)
        return task is not None and task.cancel()

    async def aclose(self) -> None:
        """Cancel the responses that are still being generated after ``MAX_END_S``.

        Responses whose models are closed end by themselves, with an error that is stored.
        """
        if running := [*self._running.values()]:
            _, cut = await asyncio.wait(running, timeout=MAX_END_S)
            for task in cut:
                task.cancel()
            await asyncio.wait(running, timeout=MAX_END_S)

    async def _run(self, generation: TokenStream, encoder: ResponseEncoder) -> None:
        try:
            await generation.accepted()
            _log_listings(encoder.response["id"], generation)
            encoder.open(generation)
            async for text in generation:
                encoder.text(text)
            encoder.close(generation.outcome())
        except ModelyardError as error:
            encoder.fail(error)


def _detached() -> Context:
    """Return a context for work that outlives the HTTP request, whose access log would report it as cancelled."""
    context = copy_context()
    context.run(CALLER.set, current_caller().detached())
    return context


async def _run_agent(response: Response, encoder: ResponseEncoder) -> None:
    """Generate a response as a stream that nobody reads: what it has so far can be retrieved meanwhile."""
    try:
        await response({"type": "http"}, _stay_connected, _discard)
    except ModelyardError as error:
        encoder.fail(error)
    for first_round in current_caller().requests[:1]:
        _log_listings(encoder.response["id"], first_round)


async def _stay_connected() -> Message:
    await asyncio.Event().wait()
    raise AssertionError("the event is never set")


async def _discard(_message: Message) -> None:
    pass


def _log_listings(response_id: str, generation: MeteredRequest) -> None:
    """Log what an answer that waits for its prompt lists in its headers: that of the HTTP request was sent before."""
    for header, names in ((IGNORED_HEADER, generation.dropped), (REPAIRED_HEADER, generation.repairs)):
        if names:
            logger.info("Response %s: %s: %s", response_id, header.decode(), listed(names))
