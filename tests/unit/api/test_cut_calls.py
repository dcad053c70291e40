"""What the dialects tell of calls that are cut off, or that are more than an answer may have: streamed and whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modelyard.api.anthropic.encoder import MessageEncoder
from modelyard.api.ollama.encoder import OllamaEncoder
from modelyard.api.openai.chat_encoder import ChatEncoder
from modelyard.api.openai.chunks import Identity
from modelyard.api.openai.responses.encoder import ResponseEncoder
from modelyard.api.openai.responses.schema import ResponsesRequest
from modelyard.api.openai.schema import ChatCompletionRequest
from modelyard.protocol.events import Accepted, Finished
from modelyard.protocol.prompts import Chat, NamedTool, Sampling
from modelyard.protocol.values import OutputFormat, SequenceId, Usage
from modelyard.yard.requests.token_stream import TokenStream

TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}
USER = {"role": "user", "content": "hi"}
FREE = Chat((USER,), (TOOL,))
CALL = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
CUT = f"I look.\n{CALL}\n{CALL[:-22]}"

CHAT_REQUEST = ChatCompletionRequest.model_validate({"model": "m", "messages": [USER]})
RESPONSES_REQUEST = ResponsesRequest.model_validate({"model": "m", "input": "hi"})
DIALECTS = {
    "chat": lambda chat: ChatEncoder(CHAT_REQUEST, chat, Identity("chatcmpl")),
    "anthropic": MessageEncoder,
    "ollama": lambda chat: OllamaEncoder(chat, "m", is_chat=True),
    "responses": lambda chat: ResponseEncoder(RESPONSES_REQUEST, chat, {}, Sampling(), print),
}
# (field, its value for an answer that was cut off, its value for one that ends with calls)
REASONS = {
    "chat": ("finish_reason", "length", "tool_calls"),
    "anthropic": ("stop_reason", "max_tokens", "tool_use"),
    "ollama": ("done_reason", "length", "stop"),
    "responses": ("status", "incomplete", "completed"),
}

each_dialect = pytest.mark.parametrize("dialect", DIALECTS)


def answers(dialect: str, chat: Chat, text: str, reason: Any) -> tuple[str, str]:
    """A stream, a character at a time, and a whole answer, as text."""
    finished = Finished(SequenceId(1), reason, Usage(1, 2, 0))
    streamed = DIALECTS[dialect](chat)
    written = streamed.open(opened())
    written += b"".join(streamed.text(character) for character in text)
    written += streamed.close(finished) + streamed.end([finished])
    whole = DIALECTS[dialect](chat)
    whole.open(opened())
    body = whole.whole([whole.choice(text, finished)], [finished])
    return written.decode(), json.dumps(body)


def opened() -> TokenStream:
    stream = TokenStream("m")
    stream.put(Accepted(SequenceId(1), 1, OutputFormat("hermes", "", False)))
    return stream


@each_dialect
def test_a_call_that_was_cut_off_is_neither_told_nor_text(dialect: str) -> None:
    for answer in answers(dialect, FREE, CUT, "length"):
        assert "<tool" not in answer
        assert calls_in(dialect, answer) == 1
        field, cut, _ = REASONS[dialect]
        assert f'"{field}":"{cut}"' in answer.replace(": ", ":")


@each_dialect
@pytest.mark.parametrize(
    "chat",
    [Chat((USER,), (TOOL,), parallel_tool_calls=False), Chat((USER,), (TOOL,), NamedTool("now"))],
    ids=["no parallel calls", "a named function"],
)
def test_of_calls_that_may_be_one_the_first_is_told(dialect: str, chat: Chat) -> None:
    for answer in answers(dialect, chat, f"{CALL}\n{CALL}\nDone.", "stop"):
        assert "Done." not in answer
        assert calls_in(dialect, answer) == 1
        field, _, ended = REASONS[dialect]
        assert f'"{field}":"{ended}"' in answer.replace(": ", ":")


def calls_in(dialect: str, answer: str) -> int:
    """The calls of an answer, by what each has once."""
    if dialect == "responses":
        is_stream = answer.startswith("event:")
        return answer.count("response.function_call_arguments.done\n") if is_stream else answer.count('"function_call"')
    return answer.replace(": ", ":").count('"name":"now"')
