"""Streamed answers of models that call tools, as the fields of chunks: what is written, and what becomes of calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import Any

from modelyard.agent.agent import Agent
from modelyard.agent.events import AgentEvent, AnswerEnded, OutputArrived, RoundBegan
from modelyard.agent.loop import run
from modelyard.agent.request import AgentRequest
from modelyard.api.openai.chat import chat_requests
from modelyard.api.openai.chat_agent_encoder import event_object
from modelyard.api.openai.chunks import Identity
from modelyard.api.openai.message import delta_object
from modelyard.api.openai.schema import ChatCompletionRequest
from modelyard.api.openai.timings import take_progress, timings_object
from modelyard.api.openai.usage import total_usage, usage_object
from modelyard.api.serving.agent_encoder import RoundJoints
from modelyard.inprocess.choices import Accepting, take_logprobs
from modelyard.inprocess.side_by_side import cancel, side_by_side
from modelyard.protocol.events import Finished
from modelyard.yard.requests.token_stream import TokenStream
from modelyard.yard.yard import Yard

_Events = AsyncGenerator[AgentEvent, None]


async def agent_chunk_fields(
    yard: Yard, agent: Agent, body: ChatCompletionRequest, asked: AgentRequest, accepting: Accepting
) -> AsyncGenerator[dict[str, Any]]:
    """Yield the fields of each chunk; closing the generator cancels the model and the tools.

    Args:
        yard: computes the answers.
        agent: runs the tools.
        body: the request as it came.
        asked: the same request, with the tools.
        accepting: waits until the answers begin.

    Raises:
        ModelyardError: as ``Yard.generate``, also in the middle of the answer.
    """
    identity = Identity("chatcmpl")
    requests = chat_requests(body, asked.request)
    writers = [_AgentWriter(body, identity, index) for index in range(len(requests))]
    finished: dict[int, Finished] = {}
    async with AsyncExitStack() as answering:
        answers: list[_Events] = [
            await answering.enter_async_context(aclosing(run(yard, replace(asked, request=request), agent)))
            for request in requests
        ]
        first: list[AgentEvent] = []
        await accepting(_begun(answers, first))
        for writer, begun in zip(writers, first, strict=True):
            for fields in writer.fields(begun):
                yield fields
        events: AsyncGenerator[tuple[int, AgentEvent | None]] = side_by_side(answers, _next)
        async with aclosing(events):
            async for index, event in events:
                if event is None:
                    continue
                chunks = list(writers[index].fields(event))
                if isinstance(event, AnswerEnded):
                    finished[index] = event.finished
                    if len(finished) == len(writers):
                        in_order = [finished[number] for number in sorted(finished)]
                        chunks[-1]["usage"] = usage_object(total_usage(in_order, body.choices))
                for fields in chunks:
                    yield fields


async def _begun(answers: Sequence[_Events], first: list[AgentEvent]) -> None:
    """Add the first event of each answer to ``first``: its model has accepted the prompt."""
    reading = [asyncio.create_task(_next(answer)) for answer in answers]
    try:
        for task in reading:
            event = await task
            assert event is not None
            first.append(event)
    finally:
        await cancel(reading)


async def _next(answer: _Events) -> AgentEvent | None:
    return await anext(answer, None)


class _AgentWriter:
    """Turns the events of one answer into the fields of chunks.

    Args:
        body: the request.
        identity: of the whole answer.
        index: number of the choice, from 0.
    """

    def __init__(self, body: ChatCompletionRequest, identity: Identity, index: int) -> None:
        self._body, self._identity, self._index = body, identity, index
        self._joints = RoundJoints()
        self._generation: TokenStream | None = None

    def fields(self, event: AgentEvent) -> Iterator[dict[str, Any]]:
        """Yield the fields of the chunks of an event; the first event begins a round."""
        match event:
            case RoundBegan(_, generation):
                if self._generation is None:
                    self._common = self._identity.of(generation)
                    yield self._chunk({"role": "assistant", "content": ""})
                else:
                    self._joints.next_round()
                    # What the last round has left.
                    if (logprobs := take_logprobs(self._body, self._generation)) is not None:
                        yield self._chunk({}, logprobs=logprobs)
                self._generation = generation
            case OutputArrived(deltas, generation):
                if progress := take_progress(generation):
                    yield {**self._chunk({}), "prompt_progress": progress}
                for delta in map(delta_object, map(self._joints.joined, deltas)):
                    if delta is not None:
                        logprobs = take_logprobs(self._body, generation)
                        yield self._timed(self._chunk(delta, logprobs=logprobs), generation)
            case AnswerEnded(finished, calls_client, generation):
                reason = "tool_calls" if calls_client else finished.reason
                last = self._chunk({}, finish_reason=reason, logprobs=take_logprobs(self._body, generation))
                yield {**last, "timings": timings_object(generation)}
            case _:
                name, value = event_object(event)
                yield {**self._chunk({}), name: value}

    def _chunk(self, delta: Mapping[str, Any], **of_choice: Any) -> dict[str, Any]:
        return {**self._common, "choices": [{"index": self._index, "delta": delta, **of_choice}]}

    def _timed(self, chunk: dict[str, Any], generation: TokenStream) -> dict[str, Any]:
        return {**chunk, "timings": timings_object(generation)} if self._body.timings_per_token else chunk
