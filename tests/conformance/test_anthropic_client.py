"""The official Anthropic client against the real server with real weights. It checks what it reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import httpx2
import pytest
from anthropic import beta_tool
from pydantic import BaseModel

from support.server import RunningServer

MODEL = "smollm2"
# The client knows no temperature.
COLD = {"temperature": 0}
WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "Tell the weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "cache_control": {"type": "ephemeral"},
}
CLOCK: dict[str, Any] = {"name": "get_time", "input_schema": {"type": "object", "properties": {}}}


def connected(url: str, key: str = "unused") -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=60, _strict_response_validation=True)


@pytest.fixture
def client(server: RunningServer) -> Iterator[anthropic.Anthropic]:
    with connected(server.url) as client:
        yield client


def ask(text: str = "What is the weather in Rome?") -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def test_a_message_is_answered(client: anthropic.Anthropic) -> None:
    message = client.messages.create(model=MODEL, max_tokens=8, messages=ask("Hello!"), extra_body=COLD)
    assert (message.type, message.role, message.model) == ("message", "assistant", MODEL)
    assert message.id.startswith("msg_")
    (block,) = message.content
    assert block.type == "text"
    assert block.text
    assert message.stop_reason == "max_tokens"
    assert message.usage.output_tokens == 8
    assert message._request_id


def test_system_blocks_are_read(client: anthropic.Anthropic) -> None:
    asked: dict[str, Any] = {"model": MODEL, "max_tokens": 1, "messages": ask("Hi")}
    blocks = [{"type": "text", "text": "word " * 50, "cache_control": {"type": "ephemeral"}}]

    def read(message: anthropic.types.Message) -> int:
        return message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)

    assert read(client.messages.create(**asked, system=blocks)) > read(client.messages.create(**asked)) + 20


def test_the_streaming_helper_tells_of_blocks_and_ends_with_the_message(client: anthropic.Anthropic) -> None:
    with client.messages.stream(model=MODEL, max_tokens=8, messages=ask("Hello!"), extra_body=COLD) as stream:
        events = list(stream)
        final = stream.get_final_message()
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert "".join(event.text for event in events if event.type == "text") == final.content[0].text
    assert final.stop_reason == "max_tokens"
    assert final.usage.output_tokens == 8


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}])
@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_is_demanded_is_made(client: anthropic.Anthropic, choice: dict[str, Any], stream: bool) -> None:
    asked: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": 60,
        "messages": ask(),
        "tools": [WEATHER],
        "tool_choice": {**choice, "disable_parallel_tool_use": True},
        "extra_body": COLD,
    }
    if stream:
        with client.messages.stream(**asked) as streamed:
            pieces = [event.partial_json for event in streamed if event.type == "input_json"]
            message = streamed.get_final_message()
        assert json.loads("".join(pieces)) == message.content[0].input
    else:
        message = client.messages.create(**asked)
    (call,) = message.content
    assert (call.type, call.name) == ("tool_use", "get_weather")
    assert call.input["city"] in ("Oslo", "Rome")
    assert message.stop_reason == "tool_use"


def test_no_call_is_made_where_none_may_be(client: anthropic.Anthropic) -> None:
    message = client.messages.create(
        model=MODEL, max_tokens=8, messages=ask(), tools=[WEATHER], tool_choice={"type": "none"}
    )
    assert [block.type for block in message.content] == ["text"]


def test_an_agent_calls_reads_the_result_and_answers(client: anthropic.Anthropic) -> None:
    messages = ask()
    first = client.messages.create(
        model=MODEL, max_tokens=60, messages=messages, tools=[WEATHER], tool_choice={"type": "any"}, extra_body=COLD
    )
    messages.append({"role": "assistant", "content": first.content})
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "Sunny."}]}
        for block in first.content
        if block.type == "tool_use"
    ]
    messages.append({"role": "user", "content": [*results, {"type": "text", "text": "Is it warm?"}]})
    second = client.messages.create(model=MODEL, max_tokens=8, messages=messages, tools=[WEATHER])
    assert second.content[-1].type == "text"


def test_the_tool_runner_runs_a_tool_and_sends_its_result(client: anthropic.Anthropic) -> None:
    """The call is demanded in every turn, so that the runner is stopped after two."""
    called: list[str] = []

    @beta_tool
    def get_weather(city: Literal["Oslo", "Rome"]) -> str:
        """Tell the weather of a city."""
        called.append(city)
        return "Sunny."

    runner = client.beta.messages.tool_runner(
        model=MODEL,
        max_tokens=60,
        messages=ask(),
        tools=[get_weather],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        max_iterations=2,
        extra_body=COLD,
    )
    messages = list(runner)
    assert [message.stop_reason for message in messages] == ["tool_use", "tool_use"]
    assert called
    assert set(called) <= {"Oslo", "Rome"}


def test_an_answer_is_parsed_into_a_model(client: anthropic.Anthropic) -> None:
    class Weather(BaseModel):
        city: Literal["Oslo", "Rome"]

    message = client.messages.parse(model=MODEL, max_tokens=60, messages=ask(), output_format=Weather, extra_body=COLD)
    assert message.parsed_output.city in ("Oslo", "Rome")


def test_a_stop_sequence_is_named(client: anthropic.Anthropic) -> None:
    free = client.messages.create(model=MODEL, max_tokens=12, messages=ask("Hello!"), extra_body=COLD).content[0].text
    stop = free[4:8]
    message = client.messages.create(
        model=MODEL, max_tokens=12, messages=ask("Hello!"), extra_body=COLD, stop_sequences=["never", stop]
    )
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", stop)
    assert message.content[0].text == free[: free.index(stop)]


def test_thinking_is_a_block_of_its_own(thinker: RunningServer) -> None:
    """This model was never told to end its reasoning, and so goes on with it."""
    asked: dict[str, Any] = {"model": "thinker", "max_tokens": 8, "messages": ask(), "extra_body": COLD}
    with connected(thinker.url, "alice-key") as client:
        thought = client.messages.create(**asked, thinking={"type": "enabled", "budget_tokens": 1024})
        with client.messages.stream(**asked, thinking={"type": "enabled", "budget_tokens": 1024}) as stream:
            streamed = stream.get_final_message()
        free = client.messages.create(**asked, thinking={"type": "disabled"})
        again = [*ask(), {"role": "assistant", "content": thought.content}, *ask("Go on.")]
        client.messages.create(**{**asked, "messages": again})
    assert thought.content[0].type == "thinking"
    assert streamed.content[0].thinking == thought.content[0].thinking
    assert free.content[0].type == "text"


@pytest.mark.parametrize(
    ("fields", "error", "kind"),
    [
        ({"model": "nobody"}, anthropic.NotFoundError, "not_found_error"),
        ({"extra_body": {"temperature": 9}}, anthropic.BadRequestError, "invalid_request_error"),
        ({"messages": ask("word " * 3000)}, anthropic.BadRequestError, "invalid_request_error"),
        ({"tool_choice": {"type": "any"}}, anthropic.BadRequestError, "invalid_request_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_is_the_clients_own_exception(
    client: anthropic.Anthropic, fields: dict[str, Any], error: type[anthropic.APIStatusError], kind: str, stream: bool
) -> None:
    asked = {"model": MODEL, "max_tokens": 8, "messages": ask(), **fields}
    asked["extra_body"] = {"stream": stream, **asked.get("extra_body", {})}
    with pytest.raises(error) as refused:
        client.messages.create(**asked)
    assert refused.value.body["type"] == "error"
    assert refused.value.body["error"]["type"] == kind
    assert refused.value.request_id


def test_a_wrong_key_is_an_authentication_error(thinker: RunningServer) -> None:
    with connected(thinker.url, "mallory") as client, pytest.raises(anthropic.AuthenticationError):
        client.messages.create(model="thinker", max_tokens=1, messages=ask())


async def test_the_async_client_streams(server: RunningServer) -> None:
    async with (
        anthropic.AsyncAnthropic(base_url=server.url, api_key="unused", max_retries=0) as client,
        client.messages.stream(model=MODEL, max_tokens=6, messages=ask("Hello!")) as stream,
    ):
        pieces = [text async for text in stream.text_stream]
        final = await stream.get_final_message()
    assert "".join(pieces) == final.content[0].text


def test_what_coding_tools_send_is_understood(client: anthropic.Anthropic) -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]},
        *ask("Weather?"),
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "get_time", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1"}]},
        {"role": "assistant", "content": ""},
        *ask("And?"),
    ]
    message = client.beta.messages.create(
        model=MODEL,
        max_tokens=32000,
        messages=messages,
        tools=[WEATHER, CLOCK],
        stop_sequences=[" ", "e"],
        metadata={"user_id": "someone"},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        betas=["context-management-2025-06-27", "interleaved-thinking-2025-05-14"],
    )
    assert message.stop_reason == "stop_sequence"


def test_the_head_of_a_page_says_that_the_server_is_there(server: RunningServer) -> None:
    with httpx2.Client(base_url=server.url) as http:
        for path in ("/", "/v1/models", "/v1/models/", "/api/tags", "/v1/models/events"):
            answer = http.head(path)
            assert (answer.status_code, answer.content) == (200, b"")
