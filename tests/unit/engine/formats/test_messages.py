"""Conversations as clients send them, made ready for templates."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.engine.formats.messages import Turn, turns_of, with_instructions

Messages = list[dict[str, Any]]


def call(arguments: Any) -> dict[str, Any]:
    return {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}


def read(messages: Messages) -> tuple[list[Any], list[str]]:
    notes: list[str] = []
    return [turn.message for turn in turns_of(messages, notes)], notes


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ('{"a": [1]}', {"a": [1]}),
        ({"a": 1}, {"a": 1}),
        ('"{\\"a\\": 1}"', {"a": 1}),
        *((empty, {}) for empty in ("", " ", None, "null", "{}", "[]", [])),
    ],
)
def test_arguments_are_objects(sent: Any, told: Any) -> None:
    asked: Messages = [{"role": "assistant", "content": None, "tool_calls": [call(sent)]}]
    assert read(asked) == ([{"role": "assistant", "content": "", "tool_calls": [call(told)]}], [])
    assert asked[0]["tool_calls"] == [call(sent)]


@pytest.mark.parametrize("sent", ['{"city": "Par', "[1]", "5", '{"a": NaN}', 5, '"x"', "[" * 100_000])
def test_what_a_model_wrote_instead_of_an_object_is_kept(sent: Any) -> None:
    (message,), notes = read([{"role": "assistant", "tool_calls": [call(sent)]}])
    assert message["tool_calls"][0]["function"]["arguments"] == {"_raw": sent}
    assert notes == ["wrapped the arguments of messages[0].tool_calls[0] that are no JSON object"]


def test_results_are_text_and_know_their_function() -> None:
    messages: Messages = [
        {"role": "assistant", "content": None, "tool_calls": [call("{}")]},
        {
            "role": "tool",
            "tool_call_id": "c1",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        },
        {"role": "tool", "tool_call_id": "c2", "content": "c"},
        {"role": "tool", "tool_call_id": "c1", "name": "own", "content": "d"},
    ]
    (_, known, unknown, named), _ = read(messages)
    assert known == {"role": "tool", "tool_call_id": "c1", "name": "f", "content": "ab"}
    assert unknown == messages[2]
    assert named["name"] == "own"


def test_calls_and_results_without_ids_belong_together_in_order() -> None:
    calls = [{"function": {"name": name, "arguments": "{}"}} for name in "fgf"]
    results: Messages = [{"role": "tool", "content": str(number)} for number in range(2)]
    messages, _ = read(
        [{"role": "assistant", "tool_calls": calls}, *results, {"role": "tool", "content": "2", "name": "f"}]
    )
    ids = [call["id"] for call in messages[0]["tool_calls"]]
    assert len(set(ids)) == 3
    assert [message["tool_call_id"] for message in messages[1:]] == ids
    assert [message["name"] for message in messages[1:]] == ["f", "g", "f"]


def test_the_older_names_mean_the_same() -> None:
    older: Messages = [
        {"role": "developer", "content": "s"},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"a": 1}'}},
        {"role": "function", "name": "f", "content": "r"},
    ]
    (system, called, result), notes = read(older)
    assert system == {"role": "system", "content": "s"}
    assert called["tool_calls"][0]["function"] == {"name": "f", "arguments": {"a": 1}}
    assert result == {"role": "tool", "name": "f", "content": "r", "tool_call_id": called["tool_calls"][0]["id"]}
    assert notes == []


def test_an_empty_list_of_calls_is_none() -> None:
    assert read([{"role": "assistant", "content": "a", "tool_calls": []}]) == (
        [{"role": "assistant", "content": "a"}],
        [],
    )


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_has_one_name(name: str) -> None:
    (message,), _ = read([{"role": "assistant", "content": "a", name: "b"}])
    assert message == {"role": "assistant", "content": "a", "reasoning_content": "b"}


def test_all_else_stays_as_it_is() -> None:
    picture = [{"type": "image_url", "image_url": {"url": "data:"}}]
    messages: Messages = [
        {"role": "user", "content": picture},
        {"role": "assistant", "content": "a", "reasoning_content": "b"},
    ]
    assert read(messages) == (messages, [])


def test_the_line_that_changes_with_each_request_of_claude_code_is_left_out() -> None:
    first = "x-anthropic-billing-header: cc_version=2.1.0; cch=7adab;"
    (system, user), notes = read(
        [{"role": "system", "content": f"{first}\n\nYou code."}, {"role": "user", "content": first}]
    )
    assert system["content"] == "You code."
    assert user["content"] == first
    assert notes == ["left the billing header out of messages[0]"]
    (unchanged,), _ = read([{"role": "system", "content": f"You code.\n{first}"}])
    assert unchanged["content"].endswith(first)


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
def test_instructions_join_the_system_message(messages: Messages, told: Messages) -> None:
    turns: list[Turn] = with_instructions(turns_of(messages, []), "i")
    assert [turn.message for turn in turns] == told
