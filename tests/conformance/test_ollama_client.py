"""The official Ollama client against the real server with real weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import ollama
import pytest
from pydantic import BaseModel

from support.server import RunningServer

MODEL = "smollm2"


class Weather(BaseModel):
    city: Literal["Oslo", "Rome"]


def get_weather(city: str) -> str:
    """Tell the weather of a city.

    Args:
        city: its name
    """
    return f"Sunny in {city}."


@pytest.fixture
def client(server: RunningServer) -> Iterator[ollama.Client]:
    with ollama.Client(server.url, timeout=60) as client:
        yield client


def ask(text: str = "Hello!") -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def test_models_are_listed_shown_and_seen_running(client: ollama.Client) -> None:
    names = [model.model for model in client.list().models]
    assert names == ["smollm2", "google/gemma3"]
    shown = client.show(MODEL)
    assert shown.details.family == "llama"
    assert shown.modelinfo["llama.context_length"] == 2048
    assert {"completion", "tools"} <= set(shown.capabilities)
    running = {model.model: model for model in client.ps().models}
    assert running[MODEL].size > 90_000_000
    assert running[MODEL].expires_at is not None


@pytest.mark.parametrize("name", [MODEL, "smollm2:latest"])
def test_a_chat_is_answered_whole_and_streamed(client: ollama.Client, name: str) -> None:
    asked: dict[str, Any] = {"model": name, "messages": ask(), "options": {"num_predict": 6, "temperature": 0}}
    whole = client.chat(**asked)
    assert (whole.model, whole.done, whole.done_reason, whole.eval_count) == (name, True, "length", 6)
    assert whole.message.role == "assistant"
    assert whole.prompt_eval_count > 0
    spent = (whole.load_duration, whole.prompt_eval_duration, whole.eval_duration)
    assert whole.total_duration == sum(spent)
    assert min(spent) > 0, "clients divide by them"
    parts = list(client.chat(**asked, stream=True))
    assert "".join(part.message.content for part in parts) == whole.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]


def test_a_prompt_is_answered_whole_and_streamed(client: ollama.Client) -> None:
    asked: dict[str, Any] = {"model": MODEL, "prompt": "Hello!", "options": {"num_predict": 6, "temperature": 0}}
    whole = client.generate(**asked, system="Be brief.")
    assert whole.response
    parts = list(client.generate(**asked, stream=True))
    assert "".join(part.response for part in parts)
    assert parts[-1].done_reason == "length"


def test_raw_text_is_continued(client: ollama.Client) -> None:
    asked: dict[str, Any] = {"model": MODEL, "prompt": "The capital of France is", "raw": True}
    assert client.generate(**asked, options={"num_predict": 1, "temperature": 0}).response == " Paris"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_follows_a_schema(client: ollama.Client, stream: bool) -> None:
    asked: dict[str, Any] = {
        "model": MODEL,
        "messages": ask("What is the weather in Rome?"),
        "format": Weather.model_json_schema(),
        "options": {"num_predict": 40, "temperature": 0},
    }
    answer = client.chat(**asked, stream=stream)
    text = "".join(part.message.content for part in answer) if stream else answer.message.content
    assert Weather.model_validate_json(text).city in ("Oslo", "Rome")


def test_an_answer_is_json(client: ollama.Client) -> None:
    answer = client.generate(
        MODEL, "Say {}.", format="json", options={"num_predict": 60, "temperature": 0, "stop": ["}"]}
    )
    assert answer.response.startswith("{")


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_is_an_object_with_its_arguments(client: ollama.Client, stream: bool) -> None:
    """Ollama's API has no way to demand a call: the turns before have the model make one more."""
    turns: list[dict[str, Any]] = []
    for city in ("Oslo", "Paris", "Rome", "Bern"):
        call = {"function": {"name": "get_weather", "arguments": {"city": city}}}
        turns += [*ask(f"Weather in {city}?"), {"role": "assistant", "content": "", "tool_calls": [call]}]
    asked: dict[str, Any] = {
        "model": MODEL,
        "messages": [*turns, *ask("Weather in Rome?")],
        "tools": [get_weather],
        "options": {"num_predict": 40, "temperature": 0},
    }
    answer = client.chat(**asked, stream=stream)
    messages = [part.message for part in answer] if stream else [answer.message]
    (made,) = [each for message in messages for each in message.tool_calls or []]
    assert (made.function.name, made.function.arguments) == ("get_weather", {"city": "Rome"})
    assert not "".join(message.content or "" for message in messages)


def test_an_agent_sends_the_result_of_a_call(client: ollama.Client) -> None:
    call = {"function": {"name": "get_weather", "arguments": {"city": "Rome"}}}
    answer = client.chat(
        MODEL,
        messages=[
            *ask("What is the weather in Rome?"),
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": get_weather("Rome"), "tool_name": "get_weather"},
        ],
        tools=[get_weather],
        options={"num_predict": 6},
    )
    assert answer.message.content


def test_a_model_is_unloaded_by_keep_alive_and_is_back_when_it_is_asked(
    server: RunningServer, client: ollama.Client
) -> None:
    gone = client.generate("google/gemma3", keep_alive=0)
    assert (gone.done, gone.done_reason) == (True, "unload")
    assert "google/gemma3" not in [model.model for model in client.ps().models]
    back = client.chat("google/gemma3", messages=ask(), options={"num_predict": 1}, keep_alive="5m")
    assert back.done
    assert "google/gemma3" in [model.model for model in client.ps().models]


def test_a_model_that_is_not_there_is_a_response_error(client: ollama.Client) -> None:
    for stream in (False, True):
        with pytest.raises(ollama.ResponseError) as refused:
            list(client.chat("nobody", messages=ask(), stream=stream))
        assert refused.value.status_code == 404
        assert "nobody" in refused.value.error
    with pytest.raises(ollama.ResponseError, match="num_predict"):
        client.chat(MODEL, messages=ask(), options={"num_predict": -7})


def test_a_wrong_key_is_refused(thinker: RunningServer) -> None:
    with (
        ollama.Client(thinker.url, headers={"Authorization": "Bearer mallory"}) as client,
        pytest.raises(ollama.ResponseError) as refused,
    ):
        client.chat("thinker", messages=ask())
    assert refused.value.status_code == 401


def test_thinking_is_apart_from_the_answer(thinker: RunningServer) -> None:
    asked: dict[str, Any] = {"model": "thinker", "messages": ask(), "options": {"num_predict": 6, "temperature": 0}}
    with ollama.Client(thinker.url, headers={"Authorization": "Bearer alice-key"}) as client:
        thought = client.chat(**asked, think=True).message
        streamed = [part.message for part in client.chat(**asked, think=True, stream=True)]
        free = client.chat(**asked, think=False).message
    assert thought.thinking
    assert not thought.content
    assert "".join(message.thinking or "" for message in streamed) == thought.thinking
    assert free.content
    assert not free.thinking


async def test_the_async_client_streams(server: RunningServer) -> None:
    async with ollama.AsyncClient(server.url) as client:
        parts = [
            part
            async for part in await client.chat(
                MODEL, messages=ask(), options={"num_predict": 4, "temperature": 0}, stream=True
            )
        ]
    assert parts[-1].eval_count == 4


def test_each_line_of_a_stream_is_an_object_and_nulls_are_nothing(server: RunningServer) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": None}], "options": {"num_predict": 2}}
    answer = httpx.post(f"{server.url}/api/chat", json={**body, "format": None, "tools": None}, timeout=60)
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]


def test_what_ollamas_documents_paste_into_a_shell_is_answered(server: RunningServer) -> None:
    """``curl -d`` sends what is JSON as a form. A page of another site may do so too, and is refused."""
    body = {"model": "smollm2", "prompt": "Hi", "stream": False, "options": {"num_predict": 2}}
    as_form = {"content-type": "application/x-www-form-urlencoded"}
    with httpx.Client(base_url=server.url, timeout=60) as http:
        for path in ("/api/generate", "/api/show"):
            assert http.post(path, content=json.dumps(body), headers=as_form).status_code == 200
            for browser in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
                refused = http.post(path, content=json.dumps(body), headers=as_form | browser)
                assert refused.status_code == 403
                assert "cors_origins" in refused.json()["error"]
        assert http.post("/api/generate", content="model=smollm2", headers=as_form).status_code == 400
