"""Histories that templates refuse are repaired, and answers go on from the assistant's last message."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from support.server import RunningServer

MODEL = "smollm2"
# The model is sure of each word: a near tie would be decided by where the cells of the answer lie in the KV cache.
USER = {"role": "user", "content": "Name the days of the week."}
LIMIT = 24


def post(server: RunningServer, path: str, body: dict[str, Any]) -> httpx.Response:
    response = httpx.post(f"{server.url}{path}", json=body, timeout=60)
    assert response.status_code == 200, response.text
    return response


@pytest.fixture(scope="module")
def answer(server: RunningServer) -> tuple[str, str]:
    """The greedy answer, in two parts; the second one begins with a word."""
    body = {"model": MODEL, "messages": [USER], "max_tokens": LIMIT, "temperature": 0}
    whole = post(server, "/v1/chat/completions", body).json()["choices"][0]["message"]["content"]
    cut = whole.index(" ", len(whole) // 2)
    return whole[:cut], whole[cut:]


def test_the_continued_answer_is_the_rest_of_the_whole_one(server: RunningServer, answer: tuple[str, str]) -> None:
    begun, rest = answer
    messages = [USER, {"role": "assistant", "content": begun}]
    greedy = {"model": MODEL, "temperature": 0}
    openai = post(server, "/v1/chat/completions", {**greedy, "messages": messages, "max_tokens": LIMIT}).json()
    ollama = post(
        server,
        "/api/chat",
        {"model": MODEL, "messages": messages, "stream": False, "options": {"temperature": 0, "num_predict": LIMIT}},
    ).json()
    anthropic = post(server, "/v1/messages", {**greedy, "messages": messages, "max_tokens": LIMIT}).json()
    responses = post(server, "/v1/responses", {**greedy, "input": messages, "max_output_tokens": LIMIT}).json()
    texts = [
        openai["choices"][0]["message"]["content"],
        ollama["message"]["content"],
        anthropic["content"][0]["text"],
        responses["output"][-1]["content"][0]["text"],
    ]
    assert [text[: len(rest)] for text in texts] == [rest] * 4
    # The beginning counts as a part of the prompt.
    assert openai["usage"]["completion_tokens"] == LIMIT
    assert openai["usage"]["prompt_tokens"] == anthropic["usage"]["input_tokens"] + anthropic["usage"].get(
        "cache_read_input_tokens", 0
    )


def test_a_schema_holds_from_where_the_answer_goes_on(server: RunningServer) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]}
    answer = post(
        server,
        "/v1/chat/completions",
        {
            "model": MODEL,
            "messages": [USER, {"role": "assistant", "content": "The data:"}],
            "max_tokens": 40,
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}},
        },
    ).json()
    assert json.loads(answer["choices"][0]["message"]["content"])["a"] in ("x", "y")


def test_what_a_conversation_needed_is_told(server: RunningServer) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"city": "Par'}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "sun"},
        USER,
        USER,
    ]
    body = {"model": "google/gemma3", "messages": messages, "max_tokens": 1}
    plain = post(server, "/v1/chat/completions", body)
    repaired = plain.headers["x-modelyard-repaired"]
    assert repaired.startswith("wrapped the arguments of messages[1].tool_calls[0] that are no JSON object, ")
    assert "merged" in repaired
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json={**body, "stream": True}) as streamed:
        assert streamed.headers["x-modelyard-repaired"] == repaired
    assert "x-modelyard-repaired" not in post(server, "/v1/chat/completions", {**body, "messages": [USER]}).headers


def test_a_system_text_that_begins_with_the_billing_line_stays_cached(server: RunningServer) -> None:
    system = "You are a careful programmer who answers in few words and writes tests first. " * 8

    def cached(line: str) -> int:
        text = f"x-anthropic-billing-header: cc_version=2.1; cch={line};\n{system}"
        body = {"model": MODEL, "system": text, "messages": [USER], "max_tokens": 1}
        return int(post(server, "/v1/messages", body).json()["usage"]["cache_read_input_tokens"])

    cached("7adab")
    assert cached("00000") > 100
