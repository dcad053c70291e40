"""Input items of /v1/responses, as turns of the model's template and as they are listed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modelyard.api.media.load import ImageReference
from modelyard.api.openai.responses.history import Conversation, conversation_of
from modelyard.api.openai.responses.items import Item, listed_item
from modelyard.api.openai.responses.opaque import decoded, encoded
from modelyard.errors import InvalidRequest


def read(*items: dict[str, Any]) -> Conversation:
    return conversation_of((), [Item.model_validate(item) for item in items])


def turns(*items: dict[str, Any]) -> list[dict[str, Any]]:
    return read(*items).messages


def calls(*items: dict[str, Any]) -> list[tuple[str, Any]]:
    functions = [call["function"] for turn in turns(*items) for call in turn.get("tool_calls", ())]
    return [(function["name"], json.loads(function["arguments"])) for function in functions]


def test_a_call_that_broke_off_is_read_as_the_text_that_it_was() -> None:
    messages = turns(
        {"role": "user", "content": "Weather?"},
        {"type": "function_call", "status": "incomplete", "call_id": "c", "name": "f", "arguments": '{"a": '},
        {"role": "assistant", "content": '{"name": "f", "arguments": {"a": '},
    )
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert "tool_calls" not in messages[1]


@pytest.mark.parametrize(
    ("item", "function", "arguments"),
    [
        ({"type": "function_call", "name": "f", "arguments": '{"a": 1}'}, "f", {"a": 1}),
        ({"type": "function_call", "name": "g", "namespace": "mcp__files__", "arguments": "{}"}, "mcp__files__g", {}),
        ({"type": "custom_tool_call", "name": "patch", "input": 'a "b"\n'}, "patch", {"input": 'a "b"\n'}),
        (
            {"type": "local_shell_call", "action": {"type": "exec", "command": ["ls"], "env": {}}},
            "local_shell",
            {"command": ["ls"]},
        ),
        (
            {"type": "shell_call", "action": {"commands": ["ls"], "timeout_ms": None, "max_output_length": 9}},
            "shell",
            {"commands": ["ls"], "max_output_length": 9},
        ),
        (
            {"type": "apply_patch_call", "operation": {"type": "delete_file", "path": "a"}},
            "apply_patch",
            {"type": "delete_file", "path": "a"},
        ),
        ({"type": "tool_search_call", "arguments": {"query": "mail"}}, "tool_search", {"query": "mail"}),
        ({"type": "computer_call", "action": {"type": "screenshot"}}, "computer", {"type": "screenshot"}),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) and "type" in value else "",
)
def test_a_call_of_any_kind_is_a_call_of_the_model(item: dict[str, Any], function: str, arguments: Any) -> None:
    assert calls({"role": "user", "content": "Go."}, {"call_id": "c", "status": "completed", **item}) == [
        (function, arguments)
    ]


@pytest.mark.parametrize(
    ("item", "content"),
    [
        ({"type": "function_call_output", "call_id": "c", "output": "Sunny."}, "Sunny."),
        (
            {"type": "custom_tool_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "Done."}]},
            "Done.",
        ),
        ({"type": "local_shell_call_output", "id": "c", "output": "a.txt"}, "a.txt"),
        (
            {
                "type": "shell_call_output",
                "call_id": "c",
                "output": [{"stdout": "a", "stderr": "b", "outcome": {"type": "exit", "exit_code": 2}}],
            },
            "a\nb\nExit code: 2",
        ),
        ({"type": "apply_patch_call_output", "call_id": "c", "status": "failed", "output": "No file."}, "No file."),
        ({"type": "apply_patch_call_output", "call_id": "c", "status": "completed"}, "completed"),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_the_result_of_any_call_is_a_result(item: dict[str, Any], content: str) -> None:
    assert turns(item) == [{"role": "tool", "tool_call_id": "c", "content": content}]


def test_pictures_in_a_result_stay_pictures() -> None:
    address = "data:image/png;base64,AAAA"
    shown = {"type": "computer_screenshot", "image_url": address}
    screenshot = {"type": "computer_call_output", "call_id": "c", "output": shown}
    parts = {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "image_url": address}]}
    for item in (screenshot, parts):
        (turn,) = turns(item)
        (picture,) = turn["content"]
        assert isinstance(picture, ImageReference)


def test_a_call_that_a_server_ran_has_its_result_behind_it() -> None:
    messages = turns(
        {"type": "mcp_call", "id": "m", "server_label": "files", "name": "read", "arguments": "{}", "output": "Text."},
        {"type": "code_interpreter_call", "id": "k", "code": "1+1", "outputs": [{"type": "logs", "logs": "2"}]},
    )
    assert [(turn["role"], turn["content"]) for turn in messages] == [
        ("assistant", ""),
        ("tool", "Text."),
        ("assistant", ""),
        ("tool", "2"),
    ]
    assert messages[0]["tool_calls"][0]["function"]["name"] == "files__read"


@pytest.mark.parametrize(
    "kind",
    [
        "web_search_call",
        "file_search_call",
        "image_generation_call",
        "mcp_approval_request",
        "item_reference",
        "compaction",
        "program",
        "of_the_future",
    ],
)
def test_an_item_that_says_nothing_to_this_model_is_left_out_and_named(kind: str) -> None:
    conversation = read({"role": "user", "content": "Hi."}, {"type": kind, "id": "i", "encrypted_content": "gAAA"})
    assert [turn["role"] for turn in conversation.messages] == ["user"]
    assert conversation.left_out == [(1, kind)]


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ({"content": [{"type": "reasoning_text", "text": "Hm."}], "summary": []}, "Hm."),
        ({"summary": [], "encrypted_content": encoded("reasoning", "Hm. Ünï")}, "Hm. Ünï"),
        ({"summary": [{"type": "summary_text", "text": "Hm."}], "encrypted_content": "gAAA"}, "Hm."),
    ],
)
def test_reasoning_is_read_from_wherever_it_can_be(item: dict[str, Any], text: str) -> None:
    messages = turns({"type": "reasoning", "id": "r", **item}, {"role": "assistant", "content": "Yes."})
    assert messages == [{"role": "assistant", "content": "Yes.", "reasoning_content": text}]


def test_reasoning_that_only_another_server_can_read_is_left_out() -> None:
    conversation = read({"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "gAAAAABo"})
    assert (conversation.messages, conversation.left_out) == ([], [(0, "reasoning")])


@pytest.mark.parametrize(
    "content", [None, "", "gAAA", "modelyard.summary.AAA", "modelyard.reasoning.aG0=", "modelyard.summary.//8="]
)
def test_a_text_that_is_not_ours_or_damaged_is_not_read(content: str | None) -> None:
    assert decoded("summary", content) is None


def test_tools_that_a_search_has_found_are_added() -> None:
    tool = {"type": "function", "name": "send_mail", "parameters": {}}
    conversation = read({"type": "tool_search_output", "call_id": "c", "tools": [tool], "status": "completed"})
    assert [tool.name for tool in conversation.found_tools] == ["send_mail"]
    assert "send_mail" in conversation.messages[0]["content"]


@pytest.mark.parametrize(
    "item",
    [{"type": "message", "content": "Hi."}, {"type": "function_call", "name": "f"}, {"type": "shell_call_output"}],
    ids=lambda item: item["type"],
)
def test_an_item_without_what_it_needs_is_refused_by_its_place(item: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"input\[0\]"):
        read(item)


def test_items_are_listed_with_ids_and_parts_however_they_came() -> None:
    listed = listed_item(Item.model_validate({"role": "user", "content": "Hello!"}))
    assert listed["id"].startswith("msg_")
    assert (listed["type"], listed["role"], listed["status"]) == ("message", "user", "completed")
    assert listed["content"] == [{"type": "input_text", "text": "Hello!"}]
    again = Item.model_validate({**listed, "id": "msg_mine"})
    assert listed_item(again) == {**listed, "id": "msg_mine"}
