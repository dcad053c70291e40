"""The functions among the tools of a request: the library runs those, and the caller what it describes with dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from modelyard.errors import InvalidRequest
from modelyard.inprocess.requests import ChatRequest
from modelyard.inprocess.tools.function_tool import FunctionTool, to_function_tool, tool_name
from modelyard.inprocess.tools.program_tools import twice

# What ``tool_choice`` can say beside the name of a tool.
_CHOICES: Final = frozenset({"none", "auto", "required"})


@dataclass(frozen=True, slots=True)
class RequestTools:
    """A request, and the functions that were among its tools.

    Attributes:
        request: as it came, or without functions.
        fields: its keywords, without functions.
        functions: what the library runs where the model calls it.
    """

    request: ChatRequest | None
    fields: Mapping[str, Any]
    functions: tuple[FunctionTool, ...]


def take_functions(request: ChatRequest | None, fields: Mapping[str, Any]) -> RequestTools:
    """Take the functions out of the tools of a request; ``tool_choice`` becomes what the HTTP API takes.

    Raises:
        InvalidRequest: no tool can be made of a function, or two tools have the same name.
    """
    kept, functions = _taken(fields)
    if isinstance(request, Mapping) and "role" not in request:
        # Keywords replace what a whole request has.
        request, of_request = _taken({name: value for name, value in request.items() if name not in fields})
        functions = functions or of_request
    return RequestTools(request, kept, functions)


def _taken(values: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[FunctionTool, ...]]:
    """Return fields of a request without the functions, and the functions."""
    kept = dict(values)
    functions: tuple[FunctionTool, ...] = ()
    tools = values.get("tools")
    if isinstance(tools, Sequence) and any(map(_is_function, tools)):
        functions = tuple(to_function_tool(tool) for tool in tools if _is_function(tool))
        described = [tool for tool in tools if not _is_function(tool)]
        names = [*(tool.name for tool in functions), *map(_name_of, described)]
        if doubled := next(twice(names), None):
            raise InvalidRequest(f"Two tools are named '{doubled}'. Give each a name of its own.", "tools")
        if described:
            kept["tools"] = described
        else:
            del kept["tools"]
    choice = values.get("tool_choice")
    if _is_function(choice):
        choice = tool_name(choice)
    if isinstance(choice, str) and choice not in _CHOICES:
        kept["tool_choice"] = {"type": "function", "function": {"name": choice}}
    return kept, functions


def _is_function(tool: object) -> bool:
    return isinstance(tool, FunctionTool) or (callable(tool) and not isinstance(tool, Mapping))


def _name_of(tool: object) -> object:
    """Return the name of a tool that the caller describes; an object of its own where it has none."""
    function = tool.get("function") if isinstance(tool, Mapping) else None
    return function.get("name") if isinstance(function, Mapping) else object()


def tool_definitions(tools: Sequence[Any] | None) -> Sequence[Any] | None:
    """Return tools with functions in OpenAI's shape.

    Raises:
        InvalidRequest: no tool can be made of a function.
    """
    if not isinstance(tools, Sequence) or isinstance(tools, str):
        return tools
    return [to_function_tool(tool).definition if _is_function(tool) else tool for tool in tools]
