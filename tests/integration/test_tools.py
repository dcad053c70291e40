"""Even a model of 135M writes a valid call where one is demanded."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from support.server import RunningServer

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "unit": {"enum": ["C", "F"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "unit", "days"],
    "additionalProperties": False,
}
TIME = {"type": "object", "properties": {"zone": {"enum": ["UTC", "CET"]}}, "required": ["zone"]}
SCHEMAS: dict[str, Any] = {"weather": WEATHER, "time": TIME | {"additionalProperties": False}}


def tools(*, strict: bool | None = None) -> list[dict[str, Any]]:
    more = {} if strict is None else {"strict": strict}
    return [
        {"type": "function", "function": {"name": name, "parameters": schema, **more}}
        for name, schema in SCHEMAS.items()
    ]


def ask(server: RunningServer, **body: Any) -> Any:
    chosen = {
        "model": "smollm2",
        "messages": [{"role": "user", "content": "What is the weather in Oslo?"}],
        "tools": tools(),
        "max_tokens": 150,
        "temperature": 0,
    } | body
    with server.client() as client:
        answer = client.chat.completions.create(**chosen)
        return list(answer) if body.get("stream") else answer


def check(name: str, arguments: str) -> None:
    jsonschema.validate(json.loads(arguments), SCHEMAS[name])


NAMED = {"type": "function", "function": {"name": "time"}}


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("required", {"weather", "time"}),
        (NAMED, {"time"}),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}, {"time"}),
    ],
)
@pytest.mark.parametrize("model", ["smollm2", "google/gemma3"])
def test_a_call_that_is_demanded_is_made(server: RunningServer, model: str, choice: Any, names: set[str]) -> None:
    answer = ask(server, model=model, tool_choice=choice, parallel_tool_calls=False).choices[0]
    (call,) = answer.message.tool_calls
    assert call.function.name in names
    check(call.function.name, call.function.arguments)
    assert not answer.message.content


def test_a_call_comes_in_pieces_that_add_up_to_the_whole(server: RunningServer) -> None:
    demand = {"tool_choice": "required", "parallel_tool_calls": False}
    (call,) = ask(server, **demand).choices[0].message.tool_calls
    names, arguments, content = [], "", ""
    for chunk in ask(server, **demand, stream=True):
        delta = chunk.choices[0].delta
        content += delta.content or ""
        for piece in delta.tool_calls or ():
            names += [piece.function.name] if piece.function.name else []
            arguments += piece.function.arguments or ""
    assert (names, arguments, content) == ([call.function.name], call.function.arguments, "")


def test_drawn_calls_are_valid_each_for_itself(server: RunningServer) -> None:
    drawn = ask(server, tool_choice="required", parallel_tool_calls=False, n=3, temperature=1.3, seed=1)
    for choice in drawn.choices:
        (call,) = choice.message.tool_calls
        check(call.function.name, call.function.arguments)


def test_a_strict_tool_that_may_be_called_is_called_rightly_or_not_at_all(server: RunningServer) -> None:
    drawn = ask(server, tools=tools(strict=True), n=4, temperature=1.0, seed=2, max_tokens=80)
    for choice in drawn.choices:
        for call in choice.message.tool_calls or ():
            if choice.finish_reason == "tool_calls":
                check(call.function.name, call.function.arguments)
        assert choice.message.tool_calls or choice.message.content


def test_tools_that_may_not_be_called_are_not(server: RunningServer) -> None:
    answer = ask(server, tool_choice="none", max_tokens=20).choices[0]
    assert answer.message.content
    assert not answer.message.tool_calls
