"""The answers of /v1/messages are those that the official client's types describe, in the order that it checks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.beta import (
    BetaClearThinking20251015EditResponse,
    BetaClearToolUses20250919EditResponse,
    BetaMessage,
)
from pydantic import TypeAdapter

from modelyard.api.anthropic.context_edits import AppliedEdit
from modelyard.api.anthropic.encoder import MessageEncoder
from modelyard.api.anthropic.signatures import recalled, signature_of
from modelyard.protocol.events import Accepted, Finished
from modelyard.protocol.prompts import Chat
from modelyard.protocol.values import OutputFormat, SequenceId, Usage
from modelyard.yard.requests.token_stream import TokenStream

EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CHAT = Chat(({"role": "user", "content": "Hi"},), tools=(TOOL,))
TEXT = '<think>\nHmm.\n</think>\n\nHello.<tool_call>\n{"name": "look", "arguments": {"at": "it"}}\n</tool_call>'
FINISHED = Finished(SequenceId(1), "stop", Usage(10, 5, 4))


def opened(**options: Any) -> tuple[MessageEncoder, bytes]:
    stream = TokenStream("m")
    stream.put(Accepted(SequenceId(1), 10, OutputFormat("hermes", "think", is_open=False)))
    encoder = MessageEncoder(CHAT, **options)
    return encoder, encoder.open(stream)


def events(**options: Any) -> list[Any]:
    encoder, sent = opened(**options)
    sent += (
        b"".join(map(encoder.text, TEXT)) + encoder.comment("waits") + encoder.close(FINISHED) + encoder.end([FINISHED])
    )
    data = [json.loads(line.removeprefix("data: ")) for line in sent.decode().splitlines() if line.startswith("data: ")]
    assert [f"event: {each['type']}" for each in data] == [
        line for line in sent.decode().splitlines() if line.startswith("event: ")
    ]
    return [EVENT.validate_python(each) for each in data if each["type"] != "ping"]


def kinds(seen: list[Any]) -> list[str]:
    """The types of events and of deltas; equal ones in a row are one."""
    found = [each.delta.type if each.type == "content_block_delta" else each.type for each in seen]
    return [kind for at, kind in enumerate(found) if at == 0 or kind != found[at - 1]]


def block(*deltas: str) -> list[str]:
    return ["content_block_start", *deltas, "content_block_stop"]


def test_a_stream_is_in_the_order_that_the_client_checks() -> None:
    seen = events()
    blocks = [*block("thinking_delta", "signature_delta"), *block("text_delta"), *block("input_json_delta")]
    assert kinds(seen) == ["message_start", *blocks, "message_delta", "message_stop"]
    signatures = [
        each.delta.signature
        for each in seen
        if getattr(each, "delta", None) and each.type != "message_delta" and each.delta.type == "signature_delta"
    ]
    assert signatures == [signature_of("Hmm.")]


def test_omitted_thinking_is_in_its_signature_alone() -> None:
    seen = events(omits_thinking=True)
    assert kinds(seen)[1:4] == block("signature_delta")
    assert "Hmm" not in str(seen[1])
    assert recalled(seen[2].delta.signature) == "Hmm."


@pytest.mark.parametrize("omits", [False, True])
def test_a_whole_answer_is_that_of_the_stream(omits: bool) -> None:
    encoder, _ = opened(omits_thinking=omits)
    whole = Message.model_validate(encoder.whole([encoder.choice(TEXT, FINISHED)], [FINISHED]))
    thinking, text, call = whole.content
    assert (text.type, call.type, whole.stop_reason) == ("text", "tool_use", "tool_use")
    assert thinking.type == "thinking"
    streamed = "".join(
        each.delta.signature
        for each in events(omits_thinking=omits)
        if each.type == "content_block_delta" and each.delta.type == "signature_delta"
    )
    assert (thinking.signature, thinking.thinking) == (streamed, "" if omits else "Hmm.")


def test_the_counts_of_a_prompt_add_up() -> None:
    encoder, _ = opened()
    usage = Message.model_validate(encoder.whole([encoder.choice("Hi", FINISHED)], [FINISHED])).usage
    told = (usage.input_tokens, usage.cache_creation_input_tokens, usage.cache_read_input_tokens)
    assert told == (6, 0, 4)


def test_edits_of_the_conversation_are_reported_as_the_beta_clients_read_them() -> None:
    edits = [AppliedEdit("clear_tool_uses_20250919", 2, 41), AppliedEdit("clear_thinking_20251015", 1, 8)]
    encoder, _ = opened(edits=edits)
    whole = BetaMessage.model_validate(encoder.whole([encoder.choice(TEXT, FINISHED)], [FINISHED]))
    assert whole.context_management is not None
    uses, thinking = whole.context_management.applied_edits
    assert isinstance(uses, BetaClearToolUses20250919EditResponse)
    assert isinstance(thinking, BetaClearThinking20251015EditResponse)
    assert (uses.cleared_tool_uses, uses.cleared_input_tokens) == (2, 11)
    assert (thinking.cleared_thinking_turns, thinking.cleared_input_tokens) == (1, 2)
    encoder, _ = opened(edits=[])
    assert b'"context_management":{"applied_edits":[]}' in encoder.close(FINISHED)
    encoder, _ = opened()
    assert b"context_management" not in encoder.close(FINISHED)
