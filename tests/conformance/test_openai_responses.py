"""The official OpenAI client's responses: whole, streamed, in the background, gone on from, and looked up again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

from support.server import WAIT_S, RunningServer

MODEL = "smollm2"
WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


class Weather(BaseModel):
    city: Literal["Oslo", "Rome"]


def connected(url: str, key: str = "unused") -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=WAIT_S, _strict_response_validation=True
    )


@pytest.fixture
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with connected(server.url) as client:
        yield client


def test_a_response_is_made(client: openai.OpenAI) -> None:
    response = client.responses.create(
        model=MODEL,
        input="Tell me about the sea.",
        instructions="Tell a long story.",
        max_output_tokens=6,
        temperature=0,
    )
    assert response.id.startswith("resp_")
    assert response.output_text
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert response.usage.output_tokens == 6


def test_an_answer_is_parsed_into_a_model(client: openai.OpenAI) -> None:
    response = client.responses.parse(
        model=MODEL, input="Weather in Rome?", text_format=Weather, max_output_tokens=40, temperature=0
    )
    assert response.output_parsed.city in ("Oslo", "Rome")


def test_the_streaming_helper_tells_of_items_parts_and_text(client: openai.OpenAI) -> None:
    with client.responses.stream(model=MODEL, input="Hello!", max_output_tokens=6, temperature=0) as stream:
        events = list(stream)
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == events[-1].response.output_text


def test_an_agent_calls_reads_the_result_and_answers(client: openai.OpenAI) -> None:
    with client.responses.stream(
        model=MODEL,
        input="Weather in Rome?",
        tools=[WEATHER],
        tool_choice="required",
        parallel_tool_calls=False,
        max_output_tokens=60,
        temperature=0,
    ) as stream:
        events = list(stream)
        first = stream.get_final_response()
    (call,) = first.output
    assert (call.type, call.name, call.status) == ("function_call", "get_weather", "completed")
    assert json.loads(call.arguments)["city"] in ("Oslo", "Rome")
    (done,) = (event for event in events if event.type == "response.function_call_arguments.done")
    assert done.arguments == call.arguments
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."}
    by_id = client.responses.create(
        model=MODEL, previous_response_id=first.id, input=[result], tools=[WEATHER], max_output_tokens=6
    )
    # The same conversation, as clients that keep it themselves send it.
    by_items = client.responses.create(
        model=MODEL,
        input=[{"role": "user", "content": "Weather in Rome?"}, *first.output, result],
        tools=[WEATHER],
        max_output_tokens=6,
        store=False,
    )
    assert by_id.usage.input_tokens == by_items.usage.input_tokens


def test_a_response_is_found_again_with_its_input_and_then_deleted(client: openai.OpenAI) -> None:
    made = client.responses.create(model=MODEL, input="Hello!", max_output_tokens=2, metadata={"of": "mine"})
    assert client.responses.retrieve(made.id) == made
    (item,) = client.responses.input_items.list(made.id)
    assert (item.role, item.content[0].text) == ("user", "Hello!")
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_one_that_is_not_stored_is_not_found(client: openai.OpenAI) -> None:
    made = client.responses.create(model=MODEL, input="Hello!", max_output_tokens=2, store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model=MODEL, input="Go on.", previous_response_id=made.id)


def test_a_response_in_the_background_is_waited_for_or_cancelled(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "input": "Tell me a long story.", "background": True}
    response = client.responses.create(**asked, max_output_tokens=4)
    deadline = time.monotonic() + WAIT_S
    while response.status in ("queued", "in_progress"):
        assert time.monotonic() < deadline
        response = client.responses.retrieve(response.id)
    assert response.output_text
    long = client.responses.create(**asked, max_output_tokens=1500, temperature=0)
    assert client.responses.cancel(long.id).status == "cancelled"
    assert client.responses.retrieve(long.id).status == "cancelled"


def test_a_response_belongs_to_the_key_that_asked_for_it(thinker: RunningServer) -> None:
    with connected(thinker.url, "alice-key") as alice, connected(thinker.url, "bob-key") as bob:
        made = alice.responses.create(
            model="thinker", input="Hello!", reasoning={"effort": "none"}, max_output_tokens=2
        )
        for look in (bob.responses.retrieve, bob.responses.delete):
            with pytest.raises(openai.NotFoundError):
                look(made.id)
        with pytest.raises(openai.NotFoundError):
            bob.responses.create(model="thinker", input="Go on.", previous_response_id=made.id)
        found = alice.responses.retrieve(made.id)
        assert (found.id, found.output_text) == (made.id, made.output_text)


def test_reasoning_is_an_item_of_its_own(thinker: RunningServer) -> None:
    with connected(thinker.url, "alice-key") as client:
        with client.responses.stream(model="thinker", input="Hello!", max_output_tokens=6) as stream:
            events = list(stream)
        final = events[-1].response
        assert [item.type for item in final.output] == ["reasoning", "message"] or final.output[0].type == "reasoning"
        text = "".join(event.delta for event in events if event.type == "response.reasoning_text.delta")
        assert text == final.output[0].content[0].text
        again = client.responses.create(
            model="thinker",
            input=[{"role": "user", "content": "Hello!"}, *final.output, {"role": "user", "content": "And?"}],
            reasoning={"effort": "none"},
            max_output_tokens=2,
        )
    assert again.output_text


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_is_the_clients_own_exception(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.responses.create(model="nobody", input="Hi", stream=stream)
    assert refused.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="'prompt'"):
        client.responses.create(model=MODEL, input="Hi", prompt={"id": "pmpt_1"}, stream=stream)
