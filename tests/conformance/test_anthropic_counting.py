"""The official Anthropic client counts tokens before it asks."""

from __future__ import annotations

from collections.abc import Iterator

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


def test_refusals_are_the_clients_own_exceptions(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="'nobody' does not exist"):
        client.messages.count_tokens(model="nobody", messages=[{"role": "user", "content": "Hello"}])
    with pytest.raises(anthropic.BadRequestError, match="'messages'"):
        client.messages.count_tokens(model="smollm2", messages=[])
