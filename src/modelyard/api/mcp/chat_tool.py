"""The tool that answers conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from modelyard.agent.events import AgentEvent, CallBegan, OutputArrived, RoundBegan
from modelyard.api.mcp.tools import Tool, ToolAnswer, ToolCall, tool_answer
from modelyard.api.openai.chat import agent_choices, asked_chat, chat_choices
from modelyard.api.openai.schema import ChatCompletionRequest
from modelyard.api.serving.agent import whole_agent_answer
from modelyard.api.serving.streaming import whole_answer
from modelyard.errors import InvalidRequest
from modelyard.protocol.deltas import ContentDelta, Delta
from modelyard.yard.requests.output_reader import OutputReader
from modelyard.yard.requests.requests import Request
from modelyard.yard.requests.token_stream import TokenStream

_PROMPT: Final = {
    "type": "string",
    "minLength": 1,
    "description": "What the user says, in place of `messages`: a conversation of one message.",
}


# The fields that clients know from OpenAI's API, and the most common ones of other servers.
_LISTED: Final = (
    *("messages", "model", "max_tokens", "temperature", "top_p", "top_k", "min_p", "stop", "seed", "n"),
    *("presence_penalty", "frequency_penalty", "reasoning_effort", "response_format", "grammar"),
    *("tools", "tool_choice", "parallel_tool_calls", "logprobs", "top_logprobs"),
)


async def chat(call: ToolCall) -> ToolAnswer:
    """Answer a conversation.

    Raises:
        InvalidRequest: an argument is invalid.
        ModelyardError: as ``Yard.generate``.
    """
    services = call.services
    body, ignored = await call.body(ChatCompletionRequest, _with_messages(call.arguments))
    request, asked = await asked_chat(services, body, call.http, services.media.resolved)
    if asked is None:
        text_watch = _ReportedText(call, request) if call.progress.is_wanted else None
        answer, _ = await whole_answer(services.yard, chat_choices(body, request), text_watch)
    else:
        event_watch = _ReportedEvents(call, request.max_tokens) if call.progress.is_wanted else None
        choices = agent_choices(body, asked)
        answer, _ = await whole_agent_answer(services.yard, services.agent, choices, event_watch)
    return tool_answer(orjson.dumps(answer), ignored, _text_of(answer))


class _ReportedText:
    """Reports the content of an answer as it arrives."""

    def __init__(self, call: ToolCall, request: Request) -> None:
        self._progress, self._request = call.progress, request
        self._reader: OutputReader | None = None

    def __call__(self, generation: TokenStream, text: str) -> None:
        if self._reader is None:
            self._reader = OutputReader(generation, self._request.prompt)
        content = _content_of(self._reader.push(text))
        self._progress.generated(generation.generated, content, self._request.max_tokens)


class _ReportedEvents:
    """Reports the content of an agent's answer as it arrives, and the tools that it calls."""

    def __init__(self, call: ToolCall, max_tokens: int | None) -> None:
        self._progress, self._max_tokens = call.progress, max_tokens
        self._rounds: list[TokenStream] = []

    def __call__(self, event: AgentEvent) -> None:
        match event:
            case RoundBegan(_, generation):
                self._rounds.append(generation)
            case OutputArrived(deltas):
                self._progress.generated(self._tokens, _content_of(deltas), self._max_tokens)
            case CallBegan(running):
                self._progress.calling(self._tokens, running.tool.name)

    @property
    def _tokens(self) -> int:
        return sum(generation.generated for generation in self._rounds)


def _content_of(deltas: Sequence[Delta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, ContentDelta))


def _with_messages(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a chat completion: ``prompt`` becomes a message.

    Raises:
        InvalidRequest: there are both or neither, or the prompt is no text.
    """
    values = dict(arguments)
    prompt, messages = values.pop("prompt", None), values.get("messages")
    if (prompt is None) is (messages is None):
        raise InvalidRequest("Send a conversation in 'messages', or a text in 'prompt', not both.", "messages")
    if prompt is not None:
        if not isinstance(prompt, str) or not prompt:
            raise InvalidRequest("'prompt' must be a text that is not empty.", "prompt")
        values["messages"] = [{"role": "user", "content": prompt}]
    return values


def _text_of(answer: Mapping[str, Any]) -> str:
    """Return the content of the first choice; where it has none, its calls of tools as JSON."""
    message = answer["choices"][0]["message"]
    if content := message.get("content"):
        return str(content)
    calls = message.get("tool_calls")
    return orjson.dumps({"tool_calls": calls}).decode() if calls else ""


CHAT_TOOL: Final = Tool(
    "chat",
    "Chat",
    "Ask a language model of this server. Send what the user says in 'prompt', or a conversation in 'messages'. "
    "Without 'model' the default model answers; list_models shows all. Other fields of POST /v1/chat/completions are "
    "accepted, too.",
    "inference",
    ChatCompletionRequest,
    chat,
    # A tool returns its answer whole, and reports its progress otherwise.
    without=frozenset({"stream", "stream_options", "return_progress", "timings_per_token"}),
    further={"prompt": _PROMPT},
    listed=_LISTED,
    is_open=True,
)
"""The tool of this file."""
