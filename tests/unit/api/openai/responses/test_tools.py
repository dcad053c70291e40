"""The tools of /v1/responses as functions that a model calls."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.api.openai.responses.tools import OfferedTools, Tool, ToolChoice, choice_of, offered_tools
from modelyard.api.openai.tools import AllowedToolsChoice, NamedFunction
from modelyard.errors import InvalidRequest


def offered(*tools: dict[str, Any]) -> OfferedTools:
    return offered_tools([Tool.model_validate(tool) for tool in tools])


def chosen(choice: dict[str, Any], *tools: dict[str, Any]) -> Any:
    return choice_of(ToolChoice.model_validate(choice), offered(*tools))


@pytest.mark.parametrize(
    "kind",
    [
        "web_search",
        "web_search_2025_08_26",
        "web_search_preview",
        "web_search_preview_2025_03_11",
        "file_search",
        "code_interpreter",
        "computer_use_preview",
        "image_generation",
        "tool_search",
        "of_the_future",
    ],
)
def test_a_tool_that_runs_elsewhere_is_left_out_and_named(kind: str) -> None:
    tools = offered({"type": "function", "name": "f"}, {"type": kind})
    assert list(tools.tools) == ["f"]
    assert tools.ignored == (f"tools[1] ({kind})",)


def test_a_custom_tool_is_a_function_of_one_text() -> None:
    (tool,) = offered({"type": "custom", "name": "code", "description": "Run it."}).definitions
    assert tool.function.parameters == {
        "type": "object",
        "properties": {"input": {"type": "string"}},
        "required": ["input"],
        "additionalProperties": False,
    }


def test_the_regular_expression_of_a_custom_tool_is_enforced_on_its_whole_text() -> None:
    tools = offered(
        {"type": "custom", "name": "n", "format": {"type": "grammar", "syntax": "regex", "definition": "a|b+"}}
    )
    function = tools.definitions[0].function
    assert function.parameters is not None
    assert function.parameters["properties"]["input"]["pattern"] == "^(?:a|b+)$"
    assert function.strict
    assert tools.ignored == ()


def test_a_grammar_that_is_not_enforced_is_shown_and_named() -> None:
    tools = offered(
        {
            "type": "custom",
            "name": "n",
            "description": "Adds.",
            "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "1"'},
        }
    )
    assert tools.definitions[0].function.description == 'Adds.\n\nThe input follows this grammar:\nstart: "1"'
    assert tools.ignored == ("tools[0].format",)


@pytest.mark.parametrize("kind", ["local_shell", "shell", "apply_patch"])
def test_a_tool_that_the_client_runs_is_a_function_with_known_arguments(kind: str) -> None:
    (tool,) = offered({"type": kind}).tools.values()
    assert (tool.function, tool.kind) == (kind, kind)
    assert tool.definition.function.strict


def test_a_search_that_the_client_runs_has_the_arguments_that_it_describes() -> None:
    parameters = {"type": "object", "properties": {"limit": {"type": "number"}}}
    (tool,) = offered({"type": "tool_search", "execution": "client", "parameters": parameters}).definitions
    assert tool.function.parameters == parameters


def test_the_tools_of_a_namespace_have_its_name_before_theirs() -> None:
    inner = [{"type": "function", "name": "read"}, {"type": "custom", "name": "write"}, {"type": "web_search"}]
    tools = offered(
        {"type": "namespace", "name": "files", "description": "Of files.", "tools": inner},
        {
            "type": "namespace",
            "name": "mcp__mail__",
            "description": "",
            "tools": [{"type": "function", "name": "read"}],
        },
    )
    assert list(tools.tools) == ["files__read", "files__write", "mcp__mail__read"]
    read = tools.tools["files__read"]
    assert (read.name, read.namespace, read.definition.function.description) == ("read", "files", "Of files.")
    assert tools.ignored == ("tools[0].tools[2] (web_search)",)


@pytest.mark.parametrize(
    "tools",
    [
        [{"type": "function"}],
        [{"type": "custom", "name": "a b"}],
        [{"type": "function", "name": "f"}, {"type": "custom", "name": "f"}],
        [{"type": "custom", "name": "f", "format": {"type": "grammar"}}],
        [{"type": "namespace", "name": "n" * 100, "tools": [{"type": "function", "name": "f" * 30}]}],
    ],
)
def test_a_tool_that_cannot_be_called_is_refused_by_its_place(tools: list[dict[str, Any]]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        offered(*tools)
    assert refused.value.param is not None
    assert refused.value.param.startswith("tools[")


def test_any_tool_that_the_client_runs_can_be_chosen() -> None:
    custom, shell = {"type": "custom", "name": "code"}, {"type": "shell"}
    choice, keeps = chosen({"type": "custom", "name": "code"}, custom)
    assert isinstance(choice, NamedFunction)
    assert (choice.function.name, keeps) == ("code", True)
    choice, keeps = chosen({"type": "shell"}, custom, shell)
    assert isinstance(choice, NamedFunction)
    assert (choice.function.name, keeps) == ("shell", True)
    choice, keeps = chosen(
        {"type": "allowed_tools", "mode": "required", "tools": [custom, {"type": "image_generation"}]}, custom, shell
    )
    assert isinstance(choice, AllowedToolsChoice)
    assert [tool.function.name for tool in choice.allowed_tools.tools] == ["code"]


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "web_search_preview"},
        {"type": "mcp", "server_label": "x"},
        {"type": "allowed_tools", "tools": [{"type": "file_search"}]},
    ],
)
def test_a_choice_of_a_tool_that_runs_elsewhere_chooses_none(choice: dict[str, Any]) -> None:
    assert chosen(choice, {"type": "function", "name": "f"}, {"type": "web_search_preview"}) == (None, False)


def test_a_call_is_required_only_of_tools_that_there_are() -> None:
    assert choice_of("required", offered({"type": "web_search"})) == (None, False)
    assert choice_of("required", offered({"type": "function", "name": "f"})) == ("required", True)
