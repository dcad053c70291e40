"""Models that another Modelyard has: the same answers through one more server, in every dialect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from modelyard.config import validate_config
from modelyard.errors import NotWithRemote
from support.server import WAIT_S, RunningServer, serving

GREEDY = {"temperature": 0}
QUESTION = [{"role": "user", "content": "Name the days of the week."}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "paint",
            "description": "Paint the wall.",
            "parameters": {
                "type": "object",
                "properties": {"colour": {"enum": ["red", "blue"]}},
                "required": ["colour"],
                "additionalProperties": False,
            },
        },
    }
]


@pytest.fixture(scope="module")
def embedder(minilm: Path) -> Iterator[RunningServer]:
    config = validate_config({"models": [{"model_id": str(minilm), "alias": "minilm"}]}, source="test", base=minilm)
    with serving(config) as running:
        yield running


@pytest.fixture(scope="module")
def front(server: RunningServer, embedder: RunningServer) -> Iterator[RunningServer]:
    """A server that has no model itself."""
    models = [
        {"model_id": "big", "remote": f"{server.url}/v1", "remote_model": "smollm2", "sampling": GREEDY},
        {"model_id": "vectors", "remote": f"{embedder.url}/v1", "remote_model": "minilm", "kind": "embedding"},
        {"model_id": "nobody", "remote": f"{server.url}/v1"},
    ]
    config = validate_config({"default_model_id": "big", "models": models}, source="test", base=Path("/"))
    with serving(config) as running:
        yield running


def test_a_chat_is_the_same_whole_and_streamed(server: RunningServer, front: RunningServer) -> None:
    asked: dict[str, Any] = {"messages": QUESTION, "max_tokens": 24, "logprobs": True, "top_logprobs": 2}
    with server.client() as there, front.client() as here:
        expected = there.chat.completions.create(model="smollm2", **asked)
        whole = here.chat.completions.create(model="big", **asked)
        stream = here.chat.completions.create(model="big", stream=True, stream_options={"include_usage": True}, **asked)
        chunks = list(stream)
    assert whole.choices[0].message == expected.choices[0].message
    assert whole.choices[0].finish_reason == expected.choices[0].finish_reason
    assert (whole.model, whole.usage.total_tokens) == ("big", expected.usage.total_tokens)  # type: ignore[union-attr]
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == expected.choices[0].message.content
    # Token by token, not all at once.
    assert sum(bool(text) for text in texts) > 10
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 24
    tokens, same = expected.choices[0].logprobs.content, whole.choices[0].logprobs.content  # type: ignore[union-attr]
    assert tokens is not None
    assert same is not None
    assert [each.token for each in same] == [each.token for each in tokens]
    assert [len(each.top_logprobs) for each in same] == [2] * 24


def test_tools_are_called_through_another_server(server: RunningServer, front: RunningServer) -> None:
    with front.client() as client:
        answer = client.chat.completions.create(
            model="big",
            messages=[{"role": "user", "content": "Paint the wall red."}],
            tools=TOOLS,  # type: ignore[arg-type]
            tool_choice="required",
            parallel_tool_calls=False,
            max_tokens=80,
        )
        assert answer.choices[0].finish_reason == "tool_calls"
        (call,) = answer.choices[0].message.tool_calls or ()
        assert call.type == "function"
        assert json.loads(call.function.arguments)["colour"] in ("red", "blue")
        history: Any = [
            {"role": "user", "content": "Paint the wall red."},
            answer.choices[0].message.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": call.id, "content": "done"},
        ]
        later = client.chat.completions.create(model="big", messages=history, tools=TOOLS, max_tokens=8)  # type: ignore[arg-type]
    with server.client() as there:
        expected = there.chat.completions.create(model="smollm2", messages=history, tools=TOOLS, max_tokens=8)  # type: ignore[arg-type]
    assert later.usage is not None
    assert expected.usage is not None
    assert later.usage.prompt_tokens == expected.usage.prompt_tokens
    assert later.choices[0].message == expected.choices[0].message


def test_an_answer_follows_its_schema(front: RunningServer) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
    body = {"model": "big", "messages": QUESTION, "response_format": form, "max_tokens": 40}
    answer = front.post("/v1/chat/completions", body).json()
    assert isinstance(json.loads(answer["choices"][0]["message"]["content"])["n"], int)


def test_vectors_are_the_same(embedder: RunningServer, front: RunningServer) -> None:
    with embedder.client() as there, front.client() as here:
        expected = there.embeddings.create(model="minilm", input=["sea", "desert"])
        answer = here.embeddings.create(model="vectors", input=["sea", "desert"])
    for one, other in zip(answer.data, expected.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    assert answer.usage == expected.usage


@pytest.mark.parametrize(
    ("path", "body", "text_of"),
    [
        ("/v1/completions", {"prompt": "Once upon a time", "max_tokens": 8}, lambda a: a["choices"][0]["text"]),
        ("/v1/messages", {"messages": QUESTION, "max_tokens": 8}, lambda a: a["content"][0]["text"]),
        ("/v1/responses", {"input": "Hi", "max_output_tokens": 8}, lambda a: a["output"][0]["content"][0]["text"]),
        (
            "/api/chat",
            {"messages": QUESTION, "stream": False, "options": {"num_predict": 8}},
            lambda a: a["message"]["content"],
        ),
        ("/completion", {"prompt": "Once", "n_predict": 8}, lambda a: a["content"]),
    ],
)
def test_all_dialects_reach_it(
    server: RunningServer, front: RunningServer, path: str, body: dict[str, Any], text_of: Any
) -> None:
    expected = server.post(path, {"model": "smollm2", **body})
    answer = front.post(path, {"model": "big", **body})
    assert (answer.status_code, expected.status_code) == (200, 200)
    assert text_of(answer.json()) == text_of(expected.json()) != ""


def test_refusals_have_the_other_servers_words(front: RunningServer) -> None:
    with front.client() as client, pytest.raises(openai.BadRequestError, match="it makes no embeddings"):
        client.embeddings.create(model="big", input="a")
    long = [{"role": "user", "content": "word " * 3000}]
    refused = front.post("/v1/chat/completions", {"model": "big", "messages": long})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")
    unknown = front.post("/v1/chat/completions", {"model": "nobody", "messages": QUESTION})
    assert unknown.status_code == 502
    assert "remote_model" in unknown.json()["error"]["message"]


def test_it_is_listed_and_counted_like_any_other(server: RunningServer, front: RunningServer) -> None:
    listed = {model["id"]: model for model in front.get("/v1/models").json()["data"]}
    assert listed["big"]["owned_by"] == "remote"
    assert listed["big"]["status"] == "loaded"
    assert listed["big"]["resident_bytes"] == 0
    (address,) = listed["big"]["remote"]
    assert (address["address"], address["status"]) == (f"{server.url}/v1", "up")
    plan = front.post("/v1/models/plan", {"model_id": "big"}).json()
    assert (plan["outcome"], plan["needed_bytes"]) == ("loaded", 0)
    before = _completion_tokens(front)
    front.post("/v1/chat/completions", {"model": "big", "messages": QUESTION, "max_tokens": 5})
    front.settle()
    assert _completion_tokens(front) == before + 5


def _completion_tokens(server: RunningServer) -> int:
    def look() -> int:
        return server.yard.controller.counters["big"].completion_tokens  # type: ignore[index]

    return server.read(look)


def test_there_is_nothing_to_unload(front: RunningServer) -> None:
    refused = front.post("/v1/models/unload", {"model_id": "big"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "model_is_remote")
    assert front.post("/v1/models/reload", {"model_id": "big"}).json()["status"] == "loaded"
    with pytest.raises(NotWithRemote):
        front.call(_pin(front))


async def _pin(server: RunningServer) -> None:
    server.yard.retune("big", pinned=True)


def test_a_client_that_leaves_ends_the_answer_on_the_other_server(server: RunningServer, front: RunningServer) -> None:
    body = {"model": "big", "messages": QUESTION, "max_tokens": 1500, "stream": True, "ignore_eos": True}
    with httpx.stream("POST", f"{front.url}/v1/chat/completions", json=body, timeout=WAIT_S) as stream:
        lines = stream.iter_lines()
        for _ in range(6):
            next(lines)
    front.settle()
    server.settle()
    assert server.read(server.yard.monitor.running) == []


def test_servers_that_name_each_other_do_not_pass_a_request_round() -> None:
    from support.odd_server import free_port

    with free_port() as port:
        # The port of the first server is not known before it runs, so the second one is named by a free port at first.
        def naming(url: str) -> Any:
            return validate_config({"models": [{"model_id": "m", "remote": url}]}, source="test", base=Path("/"))

        with serving(naming(f"http://127.0.0.1:{port}/v1")) as first, serving(naming(f"{first.url}/v1")) as second:
            first.call(first.yard.reconfigure(naming(f"{second.url}/v1")))
            refused = first.post("/v1/chat/completions", {"model": "m", "messages": QUESTION})
            assert (refused.status_code, refused.json()["error"]["code"]) == (508, "remote_loop")
            assert refused.headers["x-should-retry"] == "false"
