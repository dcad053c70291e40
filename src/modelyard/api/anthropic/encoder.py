"""Encodes the answers of /v1/messages: blocks of text, thinking and tool calls, whole or as named events."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Final, Literal

import orjson
from typing_extensions import TypedDict

from modelyard.agent.events import ApprovalRequested, CallBegan, CallEnded, RunningCall, ToolEvent
from modelyard.agent.tools import ToolResult
from modelyard.api.anthropic.context_edits import AppliedEdit
from modelyard.api.anthropic.signatures import sealed, signature_of
from modelyard.api.errors.anthropic import error_body, event
from modelyard.api.openapi.answers_anthropic import (
    AppliedEditObject,
    ContentBlock,
    EditedFields,
    McpToolResultBlock,
    McpToolUseBlock,
    MessageObject,
    MessageUsage,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
)
from modelyard.api.serving.agent_encoder import AgentAnswer, AgentEncoder, RoundMessage
from modelyard.api.serving.call_arguments import arguments_object
from modelyard.api.serving.streaming import EVENT_STREAM
from modelyard.errors import ModelyardError
from modelyard.protocol.deltas import (
    ContentDelta,
    Delta,
    Message,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallEnd,
)
from modelyard.protocol.events import Finished
from modelyard.protocol.prompts import Chat
from modelyard.protocol.values import Usage
from modelyard.yard.requests.output_reader import OutputReader
from modelyard.yard.requests.token_stream import TokenStream

_TEXT: Final[TextBlock] = {"type": "text", "text": ""}
_THINKING: Final[ThinkingBlock] = {"type": "thinking", "thinking": "", "signature": ""}
# Characters of a token, by which the tokens of what an edit has removed are estimated: they are never computed.
_TOKEN_CHARACTERS: Final = 4

_PING: Final = event("ping", b'{"type":"ping"}')


class _MessageFields(TypedDict):
    """The fields of a message that are known before it is generated."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str


class MessageEncoder(AgentEncoder):
    """Encodes one message.

    Args:
        chat: the conversation that is answered.
        omits_thinking: whether blocks of reasoning are sent without their text.
        edits: those of ``context_management`` that were applied; None: the request has none.
    """

    headers = EVENT_STREAM

    def __init__(self, chat: Chat, *, omits_thinking: bool = False, edits: Sequence[AppliedEdit] | None = None) -> None:
        self._edits = edits
        self._chat, self._omits_thinking = chat, omits_thinking
        # The reasoning of the block that is being generated, which its signature follows.
        self._thinking: list[str] = []
        # The type of the block that is being generated, "" between blocks, and the index of the last block.
        self._block = ""
        self._index = -1

    def open(self, generation: TokenStream) -> bytes:
        """Return the event that begins the message."""
        self._reader = OutputReader(generation, self._chat)
        self._message: _MessageFields = {
            "id": f"msg_{uuid.uuid4().hex}",
            "type": "message",
            "role": "assistant",
            "model": generation.model,
        }
        # Which of them are cached is known, and reported, at the end.
        usage: MessageUsage = {
            "input_tokens": generation.prompt_tokens,
            "output_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation_input_tokens": 0,
        }
        message: dict[str, Any] = {
            **self._message,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        return _event({"type": "message_start", "message": message})

    def text(self, text: str) -> bytes:
        """Return the events of the deltas that the reader finds in ``text``."""
        return b"".join(map(self._encode, self._reader.push(text)))

    def close(self, finished: Finished) -> bytes:
        """Return the events of the text that was held back, and the event with the stop_reason."""
        events = self.deltas(self._reader.finish(finished))
        return events + self.close_agent(finished, calls_client=self._reader.ends_with_calls(finished))

    def next_round(self, _generation: TokenStream) -> bytes:
        """Return the end of the block of the round before."""
        return self._end_block()

    def deltas(self, deltas: Sequence[Delta]) -> bytes:
        """Return the events of what the model has written."""
        return b"".join(map(self._encode, deltas))

    def tool_event(self, event: ToolEvent) -> bytes:
        """Return the blocks of a call that the server runs, or a ping where it waits for its approval."""
        match event:
            case CallBegan(running):
                return self._whole_call(running)
            case CallEnded(running, result):
                return self._whole_block(_result_block(running, result))
            case ApprovalRequested():
                return _PING
        return b""

    def close_agent(self, finished: Finished, *, calls_client: bool) -> bytes:
        """Return the end of the last block, and the event with the stop_reason; a message has at least one block."""
        first = self._begin("text", _TEXT) if self._index < 0 else b""
        delta = {"stop_reason": _stop_reason(finished, calls_client=calls_client), "stop_sequence": finished.stop}
        message_delta = {
            "type": "message_delta",
            "delta": delta,
            "usage": _usage(finished.usage),
            **_management(self._edits),
        }
        return first + self._end_block() + _event(message_delta)

    def end(self, _finished: Sequence[Finished]) -> bytes:
        """Return the last event."""
        return _event({"type": "message_stop"})

    def comment(self, _text: str) -> bytes:
        """Return a ping event; Anthropic's streams have no comments."""
        return _PING

    def error(self, error: ModelyardError) -> bytes:
        """Return the error event."""
        return event("error", error_body(error))

    def choice(self, text: str, finished: Finished) -> AgentAnswer:
        """Return the parsed message as an answer of one round."""
        message = RoundMessage(self._reader.whole(text, finished), 0)
        return AgentAnswer((message,), finished, self._reader.ends_with_calls(finished))

    def agent_choice(self, answer: AgentAnswer) -> AgentAnswer:
        """Return the answer as it is: its parts become the blocks of the message."""
        return answer

    def whole(self, choices: Sequence[AgentAnswer], finished: Sequence[Finished]) -> MessageObject:
        """Return the message as one object."""
        (answer,), (outcome,) = choices, finished
        blocks = [block for part in answer.parts for block in _agent_blocks(part, omits_thinking=self._omits_thinking)]
        return {
            **self._message,
            "content": blocks or [_TEXT],
            "stop_reason": _stop_reason(outcome, calls_client=answer.calls_client),
            "stop_sequence": outcome.stop,
            "usage": _usage(outcome.usage),
            **_management(self._edits),
        }

    def _encode(self, delta: Delta) -> bytes:
        match delta:
            case ContentDelta(text):
                return self._begin("text", _TEXT) + self._delta({"type": "text_delta", "text": text})
            case ReasoningDelta(text):
                begin = self._begin("thinking", _THINKING)
                self._thinking.append(text)
                if self._omits_thinking:
                    return begin
                return begin + self._delta({"type": "thinking_delta", "thinking": text})
            case ToolCallBegin(_, id, name):
                block: ToolUseBlock = {"type": "tool_use", "id": id, "name": name, "input": {}}
                return self._end_block() + self._begin("tool_use", block)
            case ToolCallArguments(_, text):
                return self._delta({"type": "input_json_delta", "partial_json": text})
            case ToolCallEnd():
                return self._end_block()

    def _whole_call(self, running: RunningCall) -> bytes:
        block = _call_block(running)
        begin = self._end_block() + self._begin("mcp_tool_use", {**block, "input": {}})
        arguments = running.call.arguments if block["input"] else "{}"
        return begin + self._delta({"type": "input_json_delta", "partial_json": arguments}) + self._end_block()

    def _whole_block(self, block: ContentBlock) -> bytes:
        return self._end_block() + self._begin(block["type"], block) + self._end_block()

    def _begin(self, kind: str, block: ContentBlock) -> bytes:
        """Return the event that starts a block; nothing if a block of that type is open."""
        if self._block == kind:
            return b""
        ended = self._end_block()
        self._block, self._index = kind, self._index + 1
        return ended + _event({"type": "content_block_start", "index": self._index, "content_block": block})

    def _end_block(self) -> bytes:
        if not self._block:
            return b""
        signature = b""
        if self._block == "thinking":
            text = "".join(self._thinking)
            self._thinking.clear()
            signed = sealed(text) if self._omits_thinking else signature_of(text)
            signature = self._delta({"type": "signature_delta", "signature": signed})
        self._block = ""
        return signature + _event({"type": "content_block_stop", "index": self._index})

    def _delta(self, delta: dict[str, str]) -> bytes:
        return _event({"type": "content_block_delta", "index": self._index, "delta": delta})


def _event(data: dict[str, Any]) -> bytes:
    return event(data["type"], orjson.dumps(data))


def _agent_blocks(part: RoundMessage | ToolEvent, *, omits_thinking: bool) -> list[ContentBlock]:
    """Return the blocks of a round, or of an event of a call that the server runs."""
    match part:
        case RoundMessage(message):
            return _blocks(message, omits_thinking=omits_thinking)
        case CallBegan(running):
            return [_call_block(running)]
        case CallEnded(running, result):
            return [_result_block(running, result)]
    return []


def _call_block(running: RunningCall) -> McpToolUseBlock:
    return {
        "type": "mcp_tool_use",
        "id": running.call.id,
        "name": running.tool.own_name,
        "server_name": running.tool.server,
        # Where they are no object, the result of the call is an error with that reason.
        "input": arguments_object(running.call.arguments),
    }


def _result_block(running: RunningCall, result: ToolResult) -> McpToolResultBlock:
    return {
        "type": "mcp_tool_result",
        "tool_use_id": running.call.id,
        "is_error": result.is_error,
        "content": [{"type": "text", "text": result.text}],
    }


def _blocks(message: Message, *, omits_thinking: bool) -> list[ContentBlock]:
    blocks: list[ContentBlock] = []
    if message.reasoning and omits_thinking:
        blocks.append({"type": "thinking", "thinking": "", "signature": sealed(message.reasoning)})
    elif message.reasoning:
        signature = signature_of(message.reasoning)
        blocks.append({"type": "thinking", "thinking": message.reasoning, "signature": signature})
    if message.content:
        blocks.append({**_TEXT, "text": message.content})
    blocks += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments_object(call.arguments)}
        for call in message.tool_calls
    ]
    return blocks


def _stop_reason(
    finished: Finished, *, calls_client: bool
) -> Literal["tool_use", "end_turn", "max_tokens", "stop_sequence"]:
    if calls_client:
        return "tool_use"
    if finished.stop is not None:
        return "stop_sequence"
    return "max_tokens" if finished.reason == "length" else "end_turn"


def _management(edits: Sequence[AppliedEdit] | None) -> EditedFields:
    """Return the field that lists the applied edits, if the request had ``context_management``."""
    if edits is None:
        return {}
    return {"context_management": {"applied_edits": [_edit_object(edit) for edit in edits]}}


def _edit_object(edit: AppliedEdit) -> AppliedEditObject:
    counted: AppliedEditObject = {
        "type": edit.type,
        "cleared_input_tokens": -(-edit.characters // _TOKEN_CHARACTERS),
    }
    if edit.type.startswith("clear_thinking_"):
        counted["cleared_thinking_turns"] = edit.cleared
    else:
        counted["cleared_tool_uses"] = edit.cleared
    return counted


def _usage(usage: Usage) -> MessageUsage:
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        # Every prompt is cached, so that none of its tokens are so because the request asks for it.
        "cache_creation_input_tokens": 0,
    }
