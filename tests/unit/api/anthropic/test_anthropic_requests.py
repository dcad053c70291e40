"""What Anthropic's clients send is honoured, or left out by name: tools, edits of the context, thinking."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import anthropic.types.beta as beta
import pytest

from modelyard.api.anthropic.context_edits import CLEARED
from modelyard.api.anthropic.schema import CountRequest, MessagesRequest
from modelyard.api.anthropic.signatures import recalled, sealed, signature_of
from modelyard.api.serving.ignored_fields import ignored_fields
from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import Chat, NamedTool

TURN = {"role": "user", "content": "Hello"}
LOOK = {"name": "look", "input_schema": {"type": "object", "properties": {}}}
CACHED = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}


def request(**fields: Any) -> MessagesRequest:
    return MessagesRequest.model_validate({"messages": [TURN], "max_tokens": 8, **fields})


def chat(**fields: Any) -> Chat:
    prompt = request(**fields).checked().prompt
    assert isinstance(prompt, Chat)
    return prompt


def types_of_tools() -> list[tuple[str, str]]:
    """The types and names of all tools that the official client knows, except for functions."""
    hints = [get_type_hints(param) for param in get_args(beta.BetaToolUnionParam)]
    named = [(get_args(hint.get("type")), get_args(hint.get("name"))) for hint in hints]
    return [(kind[0], name[0] if name else "") for kind, name in named if kind and isinstance(kind[0], str)]


@pytest.mark.parametrize(("kind", "name"), types_of_tools())
def test_a_tool_of_anthropic_is_a_function_where_the_client_runs_it_and_left_out_elsewhere(
    kind: str, name: str
) -> None:
    asked = request(tools=[LOOK, {"type": kind, "name": name or "it", **CACHED}])
    functions = [tool["function"] for tool in asked.chat().tools]
    runs_here = kind.startswith(("bash_", "text_editor_", "computer_2", "memory_"))
    is_served = kind == "mcp_toolset"
    assert [function["name"] for function in functions] == ["look", *([name] if runs_here else [])]
    assert ignored_fields(asked) == ([] if runs_here or is_served else [f"tools[1] ({kind})"])
    if runs_here:
        assert functions[1]["description"]
        assert functions[1]["parameters"]["properties"]


def test_the_client_knows_tools_of_both_sorts() -> None:
    kinds = [kind for kind, _ in types_of_tools()]
    assert {"bash_20250124", "web_search_20250305", "memory_20250818"} <= set(kinds)


def test_a_choice_of_a_tool_that_is_left_out_is_left_out() -> None:
    search = {"type": "web_search_20250305", "name": "web_search"}
    for choice in ({"type": "tool", "name": "web_search"}, {"type": "any"}):
        asked = request(tools=[search], tool_choice=choice)
        assert asked.chat().tool_choice == "auto"
        assert ignored_fields(asked) == ["tools[0] (web_search_20250305)", "tool_choice"]
    with pytest.raises(InvalidRequest, match="not one of the tools: look"):
        chat(tools=[LOOK], tool_choice={"type": "tool", "name": "leap"})


def test_choices_of_tools_reach_the_model() -> None:
    assert chat(tools=[LOOK], tool_choice={"type": "any"}).tool_choice == "required"
    assert chat(tools=[LOOK], tool_choice={"type": "none"}).tool_choice == "none"
    one = chat(tools=[LOOK], tool_choice={"type": "tool", "name": "look", "disable_parallel_tool_use": True})
    assert (one.tool_choice, one.parallel_tool_calls) == (NamedTool("look"), False)


def test_what_only_anthropics_servers_do_is_named() -> None:
    fields = {
        "container": "abc",
        "speed": "fast",
        "service_tier": "standard_only",
        "metadata": {"user_id": "me"},
        "betas": ["x"],
    }
    asked = request(**fields)
    asked.checked()
    assert ignored_fields(asked) == ["container", "speed"]


def test_cache_control_is_taken_everywhere() -> None:
    text = {"type": "text", "text": "Hi", **CACHED}
    result = {"type": "tool_result", "tool_use_id": "1", "content": [text], **CACHED}
    call = {"type": "tool_use", "id": "1", "name": "look", "input": {}, **CACHED}
    turns = [{"role": "user", "content": [text]}, {"role": "assistant", "content": [call]}]
    asked = request(
        system=[text], tools=[{**LOOK, **CACHED}], messages=[*turns, {"role": "user", "content": [result]}], **CACHED
    )
    asked.checked()
    assert ignored_fields(asked) == []


def thinking(text: str, signature: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": text, "signature": signature}


@pytest.mark.parametrize("signature", [signature_of("Hmm"), "EqQBCkYIBRgC", "mdt1-%%%", "", "\ud83d"])
def test_thinking_comes_back_to_the_model_whatever_its_signature(signature: str) -> None:
    turns = [TURN, {"role": "assistant", "content": [thinking("Hmm", signature), {"type": "text", "text": "Hi"}]}, TURN]
    assert chat(messages=turns).messages[1]["reasoning_content"] == "Hmm"


def test_thinking_that_was_omitted_comes_back_in_its_signature() -> None:
    turns = [TURN, {"role": "assistant", "content": [thinking("", sealed("Hmm… é"))]}, TURN]
    assert chat(messages=turns).messages[1]["reasoning_content"] == "Hmm… é"
    assert recalled(signature_of("Hmm")) == recalled("mdt1-%%%") == recalled("EqQB") == ""


def a_loop(count: int) -> list[dict[str, Any]]:
    """A conversation with ``count`` calls, each of an exchange of its own with thinking."""
    turns: list[dict[str, Any]] = []
    for number in range(count):
        call = {"type": "tool_use", "id": f"c{number}", "name": f"f{number}", "input": {"n": number}}
        result = {"type": "tool_result", "tool_use_id": f"c{number}", "content": f"r{number}"}
        turns += [
            {"role": "user", "content": f"Do {number}"},
            {"role": "assistant", "content": [thinking(f"t{number}", "s"), call]},
            {"role": "user", "content": [result]},
        ]
    return turns


def test_old_results_are_cleared_once_there_are_enough() -> None:
    edit: dict[str, Any] = {
        "type": "clear_tool_uses_20250919",
        "trigger": {"type": "tool_uses", "value": 3},
        "keep": {"type": "tool_uses", "value": 1},
        "exclude_tools": ["f1"],
        "clear_tool_inputs": True,
    }
    management = {"edits": [edit]}
    assert request(messages=a_loop(3), context_management=management).applied_edits() == []
    assert request(messages=a_loop(3)).applied_edits() is None
    (applied,) = request(messages=a_loop(4), context_management=management).applied_edits() or ()
    assert (applied.type, applied.cleared) == ("clear_tool_uses_20250919", 2)
    few = chat(messages=a_loop(3), context_management=management)
    assert [turn["content"] for turn in few.messages if turn["role"] == "tool"] == ["r0", "r1", "r2"]
    many = chat(messages=a_loop(4), context_management=management)
    assert [turn["content"] for turn in many.messages if turn["role"] == "tool"] == [CLEARED, "r1", CLEARED, "r3"]
    calls = [call["function"]["arguments"] for turn in many.messages for call in turn.get("tool_calls", ())]
    assert [bool(str(arguments).strip("{}")) for arguments in calls] == [False, True, False, True]
    assert ignored_fields(request(context_management=management)) == []


@pytest.mark.parametrize(
    ("keep", "kept"),
    [({}, ["t2"]), ({"keep": {"type": "thinking_turns", "value": 2}}, ["t1", "t2"]), ({"keep": "all"}, None)],
)
def test_old_thinking_is_cleared(keep: dict[str, Any], kept: list[str] | None) -> None:
    edit = {"type": "clear_thinking_20251015", **keep}
    turns = chat(messages=a_loop(3), context_management={"edits": [edit]}).messages
    found = [turn["reasoning_content"] for turn in turns if "reasoning_content" in turn]
    assert found == (["t0", "t1", "t2"] if kept is None else kept)


def test_edits_that_are_not_applied_are_named() -> None:
    edits = [{"type": "compact_20260112"}, {"type": "clear_tool_uses_20250919"}]
    asked = request(messages=a_loop(9), context_management={"edits": edits})
    assert CLEARED not in str(asked.chat().messages)
    assert ignored_fields(asked) == [
        "context_management.edits[0] (compact_20260112)",
        "context_management.edits[1] (clear_tool_uses_20250919)",
    ]


def test_a_request_is_counted_as_it_is_answered() -> None:
    body: dict[str, Any] = {
        "messages": a_loop(4),
        "system": [{"type": "text", "text": "Be brief.", **CACHED}],
        "tools": [LOOK, {"type": "bash_20250124", "name": "bash"}, {"type": "web_search_20250305", "name": "s"}],
        "tool_choice": {"type": "any"},
        "thinking": {"type": "disabled"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015"}]},
    }
    counted = CountRequest.model_validate({**body, "max_tokens": 8, "stream": True})
    assert counted.checked().prompt == request(**body).checked().prompt
    assert ignored_fields(counted) == ["tools[2] (web_search_20250305)"]
    unedited = counted.unedited()
    assert unedited is not None
    assert unedited.checked().prompt != counted.checked().prompt
