"""Conversations with calls in them, made ready for templates."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.engine.formats.messages import for_template, with_instructions
from modelyard.errors import InvalidRequest


def call(arguments: Any) -> dict[str, Any]:
    return {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}


@pytest.mark.parametrize(
    ("sent", "told"), [('{"a": [1]}', {"a": [1]}), ({"a": 1}, {"a": 1}), ("", {}), (" ", {}), (None, {}), ("{}", {})]
)
def test_arguments_are_objects(sent: Any, told: Any) -> None:
    asked: list[dict[str, Any]] = [{"role": "assistant", "content": None, "tool_calls": [call(sent)]}]
    (message,) = for_template(asked)
    assert message["tool_calls"] == [call(told)]
    assert message["content"] == ""
    assert asked[0]["tool_calls"] == [call(sent)]


@pytest.mark.parametrize("arguments", ["{", "[1]", "5", '{"a": NaN}', 5])
def test_arguments_of_another_kind_are_refused(arguments: Any) -> None:
    with pytest.raises(InvalidRequest, match="arguments of the call of 'f' in message 0") as refused:
        for_template([{"role": "assistant", "tool_calls": [call(arguments)]}])
    assert refused.value.param == "messages"


def test_results_are_text_and_know_their_function() -> None:
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [call("{}")]},
        {
            "role": "tool",
            "tool_call_id": "c1",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        },
        {"role": "tool", "tool_call_id": "c2", "content": "c"},
        {"role": "tool", "tool_call_id": "c1", "name": "own", "content": "d"},
    ]
    _, known, unknown, named = for_template(messages)
    assert known == {"role": "tool", "tool_call_id": "c1", "name": "f", "content": "ab"}
    assert unknown == messages[2]
    assert named["name"] == "own"


def test_all_else_stays_as_it_is() -> None:
    picture = [{"type": "image_url", "image_url": {"url": "data:"}}]
    messages = [{"role": "user", "content": picture}, {"role": "assistant", "content": "a", "reasoning_content": "b"}]
    assert for_template(messages) == messages


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([{"role": "user", "content": "a"}], [{"role": "system", "content": "i"}, {"role": "user", "content": "a"}]),
        ([{"role": "system", "content": "s"}], [{"role": "system", "content": "s\n\ni"}]),
        ([{"role": "system", "content": None}], [{"role": "system", "content": "i"}]),
        ([{"role": "system", "content": [{"type": "text", "text": "s"}]}], [{"role": "system", "content": "s\n\ni"}]),
        ([], [{"role": "system", "content": "i"}]),
    ],
)
def test_instructions_join_the_system_message(messages: list[Any], told: list[Any]) -> None:
    assert with_instructions(messages, "i") == told
