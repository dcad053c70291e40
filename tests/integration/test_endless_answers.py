"""Answers that a small model would never end come to their end, and reasoning ends at its budget."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.server import RunningServer

TURNS = [{"role": "user", "content": "Count as far as you can."}]
INTEGER = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
LIST = {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}}
STORY = {"type": "object", "properties": {"story": {"type": "string"}, "n": {"type": "number"}}}
SCHEMAS: list[dict[str, Any]] = [INTEGER, LIST, {**STORY, "required": ["story", "n"]}, {"type": "object"}]


def ask(server: RunningServer, path: str = "/v1/chat/completions", **body: Any) -> Any:
    answer = server.post(path, {"model": "smollm2", "messages": TURNS, "temperature": 0, **body})
    assert answer.status_code == 200, answer.text
    return answer


def schema_format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("limit", [24, 90])
def test_a_greedy_answer_of_a_small_model_is_json(server: RunningServer, schema: dict[str, Any], limit: int) -> None:
    choice = ask(server, response_format=schema_format(schema), max_tokens=limit).json()["choices"][0]
    json.loads(choice["message"]["content"])
    assert choice["finish_reason"] in ("stop", "length")


def test_an_integer_ends_without_a_limit(server: RunningServer) -> None:
    choice = ask(server, response_format=schema_format(INTEGER)).json()["choices"][0]
    assert abs(json.loads(choice["message"]["content"])["a"]) < 2**63
    assert choice["finish_reason"] == "stop"


def test_a_look_ahead_is_dropped_by_name_and_the_rest_holds(server: RunningServer) -> None:
    schema = {"type": "string", "pattern": "^(?=.*[0-9])[a-z0-9]{4,8}$"}
    answer = ask(server, response_format=schema_format(schema), max_tokens=30)
    assert answer.headers["x-modelyard-ignored"] == "response_format.pattern (?=...)"
    assert 4 <= len(json.loads(answer.json()["choices"][0]["message"]["content"])) <= 8


def test_a_grammar_of_llama_cpp_holds(server: RunningServer) -> None:
    answer = ask(server, grammar='root ::= "yes" | "no"', max_tokens=10)
    assert answer.json()["choices"][0]["message"]["content"] in ("yes", "no")
