"""The official Anthropic client counts tokens before it asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from support.server import WAIT_S, RunningServer


@pytest.fixture
def client(server: RunningServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="unused", max_retries=0, timeout=WAIT_S) as client:
        yield client


def test_a_count_is_what_the_answer_bills(client: anthropic.Anthropic) -> None:
    tool: anthropic.types.ToolParam = {"name": "look", "input_schema": {"type": "object", "properties": {}}}
    turn: anthropic.types.MessageParam = {"role": "user", "content": [{"type": "text", "text": "Hello"}]}
    count = client.messages.count_tokens(model="smollm2", system="Be brief.", messages=[turn], tools=[tool])
    message = client.messages.create(model="smollm2", system="Be brief.", messages=[turn], tools=[tool], max_tokens=1)
    assert count.input_tokens == message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)


def test_a_count_includes_all_that_forms_the_prompt(client: anthropic.Anthropic) -> None:
    thinking = {"type": "thinking", "thinking": "They greet me.", "signature": "of another server"}
    call = {"type": "tool_use", "id": "t1", "name": "bash", "input": {"command": "ls"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "notes.txt"}
    asked: dict[str, Any] = {
        "model": "smollm2",
        "messages": [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": [thinking, {"type": "text", "text": "Let me look."}, call]},
            {"role": "user", "content": [result, {"type": "text", "text": "And?"}]},
        ],
        "tools": [
            {"type": "bash_20250124", "name": "bash", "cache_control": {"type": "ephemeral"}},
            {"type": "web_search_20250305", "name": "web_search"},
        ],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "betas": ["context-management-2025-06-27"],
    }
    count = client.beta.messages.count_tokens(**asked)
    answer = client.beta.messages.with_raw_response.create(**asked, max_tokens=1)
    usage = answer.parse().usage
    assert answer.headers["x-modelyard-ignored"] == "tools[1] (web_search_20250305)"
    assert count.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)
    assert count.context_management is not None
    assert count.context_management.original_input_tokens == count.input_tokens


def test_refusals_are_the_clients_own_exceptions(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="'nobody' does not exist"):
        client.messages.count_tokens(model="nobody", messages=[{"role": "user", "content": "Hello"}])
    with pytest.raises(anthropic.BadRequestError, match="'messages'"):
        client.messages.count_tokens(model="smollm2", messages=[])
