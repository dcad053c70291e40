"""No part of a request is ignored without a word: what has no effect is named, or refused by a strict server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelyard.api.anthropic.schema import MessagesRequest
from modelyard.api.ollama.schema import ChatRequest
from modelyard.api.openai.schema import ChatCompletionRequest, CompletionRequest
from modelyard.api.serving.ignored_fields import MAX_FOUND, ignored_fields
from support.scripted_app import scripted_app

TURN = {"role": "user", "content": "Hello"}
CHAT = {"messages": [TURN]}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, []),
        ({"nonsense": 1}, ["nonsense"]),
        ({"nonsense": None}, []),
        ({"user": "me", "metadata": {"a": "b"}, "service_tier": "auto"}, []),
        ({"stream": True, "stream_options": {"include_usage": True, "colour": "red"}}, ["stream_options.colour"]),
        (
            {"messages": [TURN, {**TURN, "content": [{"type": "text", "text": "Hi", "note": 1}]}]},
            ["messages[1].content[0].note"],
        ),
        ({"messages": [{**TURN, "name": "Ada", "of_some_template": 1}]}, []),
        ({"tools": [{"type": "function", "function": {"name": "f", "of_some_template": 1}}]}, []),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}, "shade": 1}}, "first": 1},
            ["first", "response_format.json_schema.shade"],
        ),
    ],
)
def test_a_field_that_nobody_knows_is_named_with_its_path(body: dict[str, Any], expected: list[str]) -> None:
    assert ignored_fields(ChatCompletionRequest.model_validate({**CHAT, **body})) == expected


def test_fields_of_all_dialects_are_named() -> None:
    assert ignored_fields(CompletionRequest.model_validate({"prompt": "Hi", "x": 1})) == ["x"]
    ollama = ChatRequest.model_validate({**CHAT, "options": {"num_thread": 2, "num_ctx": 4096, "y": 1}})
    assert ignored_fields(ollama) == ["options.num_ctx", "options.y"]
    block = {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}, "z": 1}
    anthropic = {"max_tokens": 1, "messages": [{"role": "user", "content": [block]}]}
    assert ignored_fields(MessagesRequest.model_validate(anthropic)) == ["messages[0].content[0].z"]


def test_names_are_bounded_in_number() -> None:
    body = ChatCompletionRequest.model_validate({**CHAT, **{f"x{index}": 1 for index in range(1000)}})
    assert len(ignored_fields(body)) == MAX_FOUND


@pytest.mark.parametrize(("strict", "status"), [(False, 200), (True, 400)])
async def test_the_answer_names_what_it_ignores_and_a_strict_server_refuses_it(
    tmp_path: Path, strict: bool, status: int
) -> None:
    async with scripted_app(tmp_path, lambda _submit: ["Hello"], strict=strict) as client:
        answer = await client.post("/v1/chat/completions", json={**CHAT, "nonsense": 1})
        known = await client.post("/v1/chat/completions", json={**CHAT, "user": "me"})
    assert (answer.status_code, answer.headers["x-modelyard-ignored"]) == (status, "nonsense")
    assert (known.status_code, "x-modelyard-ignored" in known.headers) == (200, False)
    if strict:
        assert answer.json()["error"]["param"] == "nonsense"


async def test_bodies_of_every_endpoint_are_read_so(tmp_path: Path) -> None:
    async with scripted_app(tmp_path, lambda _submit: ["Hello"]) as client:
        for path, body in (
            ("/v1/models/status", {"model_id": "m", "nonsense": 1}),
            ("/api/show", {"model": "m", "nonsense": 1}),
            ("/v1/messages", {**CHAT, "max_tokens": 1, "nonsense": 1}),
            ("/v1/responses", {"input": "Hi", "nonsense": 1}),
            ("/api/chat", {"model": "m", **CHAT, "nonsense": 1}),
        ):
            answer = await client.post(path, json=body)
            assert (answer.status_code, answer.headers["x-modelyard-ignored"]) == (200, "nonsense"), path
