"""Tools that the server runs, with a real model, through the official clients of Responses, Anthropic and Ollama."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import anthropic
import ollama
import openai
import pytest

from modelyard.agent.tools import ReportProgress, ServerTool, ToolResult
from modelyard.config import validate_config
from support.scripted_tools import ScriptedTools
from support.server import RunningServer, serving

PARAMETERS: Final = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
QUESTION: Final = "What is the weather in Oslo?"


async def weather(arguments: Mapping[str, Any], _report: ReportProgress) -> ToolResult:
    """Say the weather."""
    return ToolResult(f"It rains in {arguments['city']}.")


@pytest.fixture(scope="module")
def server(weights: dict[str, Path]) -> Iterator[RunningServer]:
    tool = ServerTool("sky_weather", "sky", "weather", "Return the weather of a city.", PARAMETERS, weather)
    model = {"model_id": str(weights["smollm2"]), "alias": "smollm2", "device": {"max_seq_len": 2048}}
    with serving(validate_config({"models": [model]}), tools=[ScriptedTools(tool)]) as server:
        yield server


@pytest.fixture
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", _strict_response_validation=True) as client:
        yield client


RESPONSE: Final[dict[str, Any]] = {
    "model": "smollm2",
    "input": QUESTION,
    "tools": [{"type": "mcp", "server_label": "sky"}],
    "tool_choice": {"type": "mcp", "server_label": "sky", "name": "weather"},
    "max_output_tokens": 100,
    "temperature": 0,
}


def test_a_response_uses_what_the_tool_gave(client: openai.OpenAI) -> None:
    whole = client.responses.create(**RESPONSE)
    called: Any = next(item for item in whole.output if item.type == "mcp_call")
    assert called.output == f"It rains in {json.loads(called.arguments)['city']}."
    assert whole.output_text
    events = list(client.responses.create(**RESPONSE, stream=True))
    assert "response.mcp_call.completed" in [event.type for event in events]
    # The model may not find an end.
    assert events[-1].type in ("response.completed", "response.incomplete")
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert events[-1].response.output_text == text != ""
    # The second round computes only what is new.
    assert whole.usage is not None
    assert whole.usage.input_tokens_details.cached_tokens > whole.usage.input_tokens / 4


def test_what_a_response_computed_is_used_when_it_goes_on(client: openai.OpenAI) -> None:
    first = client.responses.create(**RESPONSE)
    more = {**RESPONSE, "input": "And now?", "tool_choice": "none", "previous_response_id": first.id}
    second = client.responses.create(**more)
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens_details.cached_tokens > 0
    assert second.output_text


def test_a_message_uses_what_the_tool_gave(server: RunningServer) -> None:
    asked: dict[str, Any] = {
        "model": "smollm2",
        "max_tokens": 100,
        "extra_body": {"temperature": 0},
        "messages": [{"role": "user", "content": QUESTION}],
        "tool_choice": {"type": "tool", "name": "sky_weather"},
        "betas": ["mcp-client-2025-11-20"],
    }
    with anthropic.Anthropic(base_url=server.url, api_key="unused", _strict_response_validation=True) as client:
        whole = client.beta.messages.create(**asked)
        with client.beta.messages.stream(**asked) as stream:
            streamed = stream.get_final_message()
    messages: list[anthropic.types.beta.BetaMessage] = [whole, streamed]
    for message in messages:
        used, result, *others = message.content
        assert used.type == "mcp_tool_use"
        assert result.type == "mcp_tool_result"
        # The model is not sure of its words: the second answer, to a prompt that is reused, may have others.
        assert any(block.type == "text" and block.text for block in others)
        assert message.stop_reason in ("end_turn", "max_tokens")


def test_ollama_answers_with_the_tools_at_hand(server: RunningServer) -> None:
    """Ollama's dialect has no choice of tools, so the model may answer without them."""
    asked: dict[str, Any] = {
        "model": "smollm2",
        "messages": [{"role": "user", "content": QUESTION}],
        "options": {"temperature": 0, "num_predict": 60},
    }
    with ollama.Client(server.url) as client:
        whole = client.chat(**asked)
        streamed = "".join(part.message.content or "" for part in client.chat(**asked, stream=True))
    assert whole.message.content == streamed != ""
