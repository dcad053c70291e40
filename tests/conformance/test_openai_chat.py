"""The official OpenAI client's chats: tools, helpers, formats, reasoning and errors. It checks what it reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel, Field

from support.scripted import says
from support.server import RunningServer

MODEL = "smollm2"


class Weather(BaseModel):
    """Tell the weather of a city."""

    city: Literal["Oslo", "Rome"]
    days: int = Field(ge=1, le=9)


class Clock(BaseModel):
    """Tell the time."""

    zone: Literal["UTC", "CET"]


WEATHER = openai.pydantic_function_tool(Weather, name="get_weather")
CLOCK = openai.pydantic_function_tool(Clock, name="get_time")
# Not strict: what most programs send.
PLAIN = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]},
    },
}


@pytest.fixture
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with server.client(_strict_response_validation=True) as client:
        yield client


@pytest.fixture
def reasoner(thinker: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{thinker.url}/v1", api_key="alice-key", max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


def ask(text: str = "What is the weather in Rome?") -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("tool_choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_call_that_is_demanded_is_made(client: openai.OpenAI, tool_choice: Any) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=ask(),
        tools=[PLAIN],
        tool_choice=tool_choice,
        parallel_tool_calls=False,
        max_tokens=60,
        temperature=0,
    )
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls
    assert (call.type, call.function.name) == ("function", "get_weather")
    assert call.id.startswith("call_")
    assert json.loads(call.function.arguments)["city"] in ("Oslo", "Rome")


def test_a_tool_that_is_not_allowed_is_never_called(client: openai.OpenAI) -> None:
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "get_time"}}]}
    answer = client.chat.completions.create(
        model=MODEL,
        messages=ask(),
        tools=[WEATHER, CLOCK],
        tool_choice={"type": "allowed_tools", "allowed_tools": allowed},
        max_tokens=60,
        temperature=0,
    )
    assert {call.function.name for call in answer.choices[0].message.tool_calls} == {"get_time"}


def test_a_model_may_answer_where_it_may_call_and_must_where_it_must_not(client: openai.OpenAI) -> None:
    for choice in ("auto", "none"):
        answer = client.chat.completions.create(
            model=MODEL,
            messages=ask("Say hi."),
            tools=[PLAIN],
            tool_choice=choice,
            max_tokens=8,
            temperature=0,
            extra_body={"grammar": says("Hi!")},
        )
        assert answer.choices[0].message.content == "Hi!"
        assert answer.choices[0].message.tool_calls is None
        assert answer.choices[0].finish_reason == "stop"


def test_calls_are_told_apart_by_index_and_id_in_a_stream(client: openai.OpenAI) -> None:
    calls = [{"name": "get_weather", "arguments": {"city": city}} for city in ("Oslo", "Rome")]
    with client.chat.completions.stream(
        model=MODEL,
        messages=ask(),
        tools=[PLAIN],
        max_tokens=100,
        extra_body={"grammar": says("\n".join(map(json.dumps, calls)))},
    ) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    message = final.choices[0].message
    assert final.choices[0].finish_reason == "tool_calls"
    assert [call.index for call in message.tool_calls] == [0, 1]
    assert len({call.id for call in message.tool_calls}) == 2
    assert [json.loads(call.function.arguments)["city"] for call in message.tool_calls] == ["Oslo", "Rome"]
    assert not message.content
    done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    assert [event.index for event in done] == [0, 1]


def test_the_streaming_helper_tells_of_content_as_it_grows(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL,
        messages=ask("Hello!"),
        stream_options={"include_usage": True},
        extra_body={"grammar": says("Hello to you all.")},
    ) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    deltas = [event.delta for event in events if event.type == "content.delta"]
    (done,) = (event for event in events if event.type == "content.done")
    assert len(deltas) > 1
    assert "".join(deltas) == done.content == final.choices[0].message.content
    assert final.usage.completion_tokens > 1


def test_an_answer_is_parsed_into_a_model(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL, messages=ask(), response_format=Weather, max_tokens=60, temperature=0
    )
    assert answer.choices[0].message.parsed.city in ("Oslo", "Rome")
    with client.chat.completions.stream(
        model=MODEL, messages=ask(), response_format=Weather, max_tokens=60, temperature=0
    ) as stream:
        parsed = stream.get_final_completion().choices[0].message.parsed
    assert 1 <= parsed.days <= 9


def test_strict_calls_are_parsed_into_models(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL, messages=ask(), tools=[WEATHER, CLOCK], tool_choice="required", max_tokens=100, temperature=0
    )
    calls = answer.choices[0].message.tool_calls
    assert calls
    assert all(isinstance(call.function.parsed_arguments, Weather | Clock) for call in calls)


def test_an_answer_that_was_cut_off_is_not_parsed(client: openai.OpenAI) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model=MODEL, messages=ask(), response_format=Weather, max_tokens=3)


def test_an_agent_calls_reads_the_result_and_answers(client: openai.OpenAI) -> None:
    messages = ask()
    first = client.chat.completions.create(
        model=MODEL, messages=messages, tools=[PLAIN], tool_choice="required", max_tokens=60, temperature=0
    )
    # As it came, with all the fields that the client's model of a message has.
    messages.append(first.choices[0].message)
    messages += [
        {"role": "tool", "tool_call_id": call.id, "content": [{"type": "text", "text": "Sunny, 30 degrees."}]}
        for call in first.choices[0].message.tool_calls
    ]
    asked = {"model": MODEL, "tools": [PLAIN], "tool_choice": "none", "max_tokens": 12}
    before = client.chat.completions.create(messages=ask(), **asked)
    second = client.chat.completions.create(messages=messages, **asked)
    assert second.choices[0].message.content
    assert second.usage.prompt_tokens > before.usage.prompt_tokens


async def test_the_async_client_streams_a_call(server: RunningServer) -> None:
    async with server.async_client() as client:
        chunks = await client.chat.completions.create(
            model=MODEL,
            messages=ask(),
            tools=[PLAIN],
            tool_choice="required",
            parallel_tool_calls=False,
            max_tokens=60,
            temperature=0,
            stream=True,
        )
        deltas = [chunk.choices[0].delta async for chunk in chunks]
    pieces = [piece for delta in deltas for piece in delta.tool_calls or []]
    assert pieces[0].id
    assert pieces[0].function.name == "get_weather"
    assert {piece.index for piece in pieces} == {0}
    assert all(piece.id is None and piece.function.name is None for piece in pieces[1:])
    assert json.loads("".join(piece.function.arguments for piece in pieces))["city"] in ("Oslo", "Rome")


def test_choices_have_their_own_logprobs(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=ask(), n=2, seed=3, logprobs=True, top_logprobs=2, max_tokens=3, temperature=1
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        said = choice.logprobs.content
        assert "".join(token.token for token in said) == choice.message.content
        assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in said)
    assert answer.usage.completion_tokens == 6


def test_a_prediction_changes_nothing(client: openai.OpenAI) -> None:
    # An answer of certain choices: guesses are verified together, which moves near ones.
    asked = {"model": MODEL, "messages": ask("List the numbers from 1 to 10."), "max_tokens": 16, "temperature": 0}
    plain = client.chat.completions.create(**asked).choices[0].message.content
    predicted = client.chat.completions.create(**asked, prediction={"type": "content", "content": plain})
    assert predicted.choices[0].message.content == plain


def test_reasoning_is_apart_from_the_answer(reasoner: openai.OpenAI) -> None:
    script = {"grammar": says("Rome is warm.</think>\nSunny.")}
    asked = {"model": "thinker", "messages": ask(), "max_tokens": 40, "extra_body": script}
    message = reasoner.chat.completions.create(**asked).choices[0].message
    assert (message.reasoning_content, message.content) == ("Rome is warm.", "Sunny.")
    deltas = [chunk.choices[0].delta for chunk in reasoner.chat.completions.create(**asked, stream=True)]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "Rome is warm."
    assert "".join(delta.content or "" for delta in deltas) == "Sunny."


def test_reasoning_can_be_switched_off(reasoner: openai.OpenAI) -> None:
    message = (
        reasoner.chat.completions.create(
            model="thinker",
            messages=ask(),
            reasoning_effort="none",
            max_tokens=20,
            extra_body={"grammar": says("Sunny.")},
        )
        .choices[0]
        .message
    )
    assert message.content == "Sunny."
    assert not hasattr(message, "reasoning_content")


@pytest.mark.parametrize(
    ("fields", "error", "code", "param"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "model_not_found", "model"),
        ({"temperature": -1}, openai.BadRequestError, "invalid_request", "temperature"),
        ({"messages": ask("word " * 3000)}, openai.BadRequestError, "context_length_exceeded", "messages"),
        ({"tool_choice": "required"}, openai.BadRequestError, "invalid_request", "tool_choice"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_is_the_clients_own_exception(
    client: openai.OpenAI,
    fields: dict[str, Any],
    error: type[openai.APIStatusError],
    code: str,
    param: str,
    stream: bool,
) -> None:
    with pytest.raises(error) as refused:
        client.chat.completions.create(**{"model": MODEL, "messages": ask(), "stream": stream, **fields})
    assert (refused.value.code, refused.value.param) == (code, param)
    assert refused.value.request_id


def test_a_wrong_key_is_an_authentication_error(thinker: RunningServer) -> None:
    with (
        openai.OpenAI(base_url=f"{thinker.url}/v1", api_key="mallory", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        client.chat.completions.create(model="thinker", messages=ask())
    assert refused.value.code == "invalid_api_key"


def test_what_coding_tools_send_is_understood(client: openai.OpenAI) -> None:
    """Cache marks, empty lists, nulls, calls without arguments, turns in a row: nothing that a model could not read."""
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]},
        *ask("Hello."),
        *ask("Weather?"),
        {"role": "assistant", "content": "", "refusal": None, "annotations": [], "tool_calls": None},
        {"role": "system", "content": "Go on."},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "now", "arguments": ""}}],
        },
        {"role": "tool", "tool_call_id": "call_1", "name": "now", "content": []},
        *ask(""),
    ]
    answer = client.chat.completions.create(
        model=MODEL,
        messages=messages,
        max_tokens=32000,
        stop=["."],
        extra_body={
            "tools": [{"type": "function", "function": {"name": "now", "parameters": {}}}],
            "tool_choice": None,
            "stream": False,
            "stream_options": {"include_usage": True},
            "prompt_cache_key": "one",
            "grammar": says("Done."),
        },
    )
    assert answer.choices[0].message.content == "Done"
    assert answer.choices[0].finish_reason == "stop"


def test_a_template_that_takes_less_gets_what_it_takes(client: openai.OpenAI) -> None:
    answer = client.chat.completions.with_raw_response.create(
        model="google/gemma3", messages=[*ask(), *ask()], max_tokens=1
    )
    assert answer.headers["x-modelyard-repaired"] == "merged messages[0] and messages[1]"
    assert answer.parse().usage.completion_tokens == 1
