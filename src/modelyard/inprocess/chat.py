"""Chats in process, whole and as streams of chunks, through the same calls of the yard as over HTTP.

Hot path: ``_ChatWriter.pieces`` runs once a chunk.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from modelyard.agent.request import AgentRequest
from modelyard.agent.tools import ServerTool
from modelyard.api.media.load import MediaLoader
from modelyard.api.openai.chat import (
    agent_choices,
    chat_agent_request,
    chat_choices,
    chat_requests,
    chat_server_tools,
)
from modelyard.api.openai.chunks import Identity
from modelyard.api.openai.message import delta_object
from modelyard.api.openai.schema import ChatCompletionRequest
from modelyard.api.serving.agent import whole_agent_answer
from modelyard.api.serving.streaming import whole_answer
from modelyard.inprocess.agent_chunks import agent_chunk_fields
from modelyard.inprocess.answers import ChatCompletion, ChatCompletionChunk
from modelyard.inprocess.choices import Accepting, chunk_fields, take_logprobs
from modelyard.inprocess.tools.function_tool import FunctionTool
from modelyard.inprocess.tools.source import ModelToolbox
from modelyard.protocol.deltas import Delta
from modelyard.protocol.events import Finished
from modelyard.protocol.prompts import Chat
from modelyard.yard.requests.context import current_caller
from modelyard.yard.requests.output_reader import OutputReader
from modelyard.yard.requests.requests import Request, WaitOptions
from modelyard.yard.requests.token_stream import TokenStream
from modelyard.yard.yard import Yard


@dataclass(frozen=True, slots=True)
class PreparedChat:
    """A chat that was checked.

    Attributes:
        body: the request as it came.
        request: the same request for the yard, with the tools of the caller alone.
        tools: what the model may call, and the library runs.
    """

    body: ChatCompletionRequest
    request: Request
    tools: tuple[ServerTool, ...]


class Chats:
    """Answers chats.

    Args:
        yard: the models.
        media: loads images and sound.
        toolbox: the tools that the models may call.
    """

    def __init__(self, yard: Yard, media: MediaLoader, toolbox: ModelToolbox) -> None:
        self._yard, self._media, self._toolbox = yard, media, toolbox

    def prepared(self, body: ChatCompletionRequest, functions: Sequence[FunctionTool] = ()) -> PreparedChat:
        """Return ``body`` with what the model may call.

        Args:
            body: the request as it came.
            functions: of the request, which go before those of the model.

        Raises:
            InvalidRequest: the value of a field is not supported.
            ModelNotFound, ModelRequired: there is no such model.
        """
        model = self._yard.configured(body.model).id
        tools = {tool.name: tool for tool in self._toolbox.server_tools(functions)}
        for tool in self._toolbox.agent.tools(model, current_caller()):
            tools.setdefault(tool.name, tool)
        offered = chat_server_tools(body, tuple(tools.values()))
        request = body.checked([tool.name for tool in offered])
        request = replace(request, wait_options=WaitOptions(keep_alive_s=body.keep_alive))
        return PreparedChat(body, request, offered)

    async def whole(self, body: ChatCompletionRequest, functions: Sequence[FunctionTool] = ()) -> ChatCompletion:
        """Return the whole answer to ``body``; the model may call ``functions``.

        Raises:
            ModelyardError: as ``Yard.generate``.
        """
        chat = self.prepared(body, functions)
        request, asked = self._asked(chat, await self._media.resolved(chat.request))
        if asked is None:
            answer, _ = await whole_answer(self._yard, chat_choices(body, request))
        else:
            answer, _ = await whole_agent_answer(self._yard, self._toolbox.agent, agent_choices(body, asked))
        return ChatCompletion.model_validate(answer)

    async def chunks(self, chat: PreparedChat, accepting: Accepting) -> AsyncGenerator[ChatCompletionChunk]:
        """Yield the answer to ``chat`` as chunks; closing the generator cancels the generation.

        Args:
            chat: the request.
            accepting: waits until the answer begins.

        Raises:
            ModelyardError: as ``Yard.generate``, also in the middle of the answer.
        """
        body = chat.body
        request, asked = self._asked(chat, await self._media.resolved(chat.request))
        fields: AsyncGenerator[dict[str, Any]]
        if asked is None:
            prompt = request.prompt
            assert isinstance(prompt, Chat)
            fields = chunk_fields(
                self._yard,
                chat_requests(body, request),
                Identity("chatcmpl"),
                lambda generation, index: _ChatWriter(body, generation, prompt, index),
                accepting,
                choices=body.choices,
                timings_per_token=bool(body.timings_per_token),
            )
        else:
            fields = agent_chunk_fields(self._yard, self._toolbox.agent, body, asked, accepting)
        async with aclosing(fields):
            async for each in fields:
                yield ChatCompletionChunk.model_validate(each)

    def _asked(self, chat: PreparedChat, request: Request) -> tuple[Request, AgentRequest | None]:
        """Return a chat, whose media are loaded, for the yard and for an agent; None where no tools are run for it."""
        return chat_agent_request(self._toolbox.agent, chat.body, request, chat.tools, self._yard.config)


class _ChatWriter:
    def __init__(self, body: ChatCompletionRequest, generation: TokenStream, chat: Chat, index: int) -> None:
        self._body, self._generation, self._index = body, generation, index
        self._reader = OutputReader(generation, chat)
        self._is_bare = self._reader.is_plain and not body.logprobs

    def opening(self) -> Iterator[Mapping[str, Any]]:
        yield {"index": self._index, "delta": {"role": "assistant", "content": ""}}

    def pieces(self, text: str) -> Iterator[Mapping[str, Any]]:
        if self._is_bare:
            yield {"index": self._index, "delta": {"content": text}}
        else:
            yield from self._written(self._reader.push(text))

    def closing(self, finished: Finished) -> Iterator[Mapping[str, Any]]:
        yield from self._written(self._reader.finish(finished))
        yield {
            "index": self._index,
            "delta": {},
            "finish_reason": "tool_calls" if self._reader.ends_with_calls(finished) else finished.reason,
            "logprobs": take_logprobs(self._body, self._generation),
        }

    def _written(self, deltas: Sequence[Delta]) -> Iterator[Mapping[str, Any]]:
        for delta in map(delta_object, deltas):
            if delta is not None:
                yield {"index": self._index, "delta": delta, "logprobs": take_logprobs(self._body, self._generation)}
