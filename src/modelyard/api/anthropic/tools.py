"""Tools of Anthropic's requests: functions of the caller, and Anthropic's own tools.

Anthropic's own tools are named by a type with a date. Those that the client runs have schemas that the model of
Anthropic has learnt, and which are not part of a request; they become functions with these schemas. Those that run on
Anthropic's servers are left out.

Source: https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview, and the pages of the tools there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from modelyard.agent.tools import ServerTool
from modelyard.api.anthropic.mcp_servers import ToolSet, ToolSettings
from modelyard.api.openai.schema import MAX_NAME_LENGTH
from modelyard.api.openai.tools import MAX_TOOLS
from modelyard.api.serving.bounded_items import at_most
from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import NamedTool, ToolChoice

_TOOL_SET: Final = "mcp_toolset"


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True, protected_namespaces=())
    # Every prompt is cached, the arguments of calls are streamed as they come, and only the model itself calls.
    known_extras: ClassVar[Collection[str]] = frozenset(
        {"allowed_callers", "cache_control", "eager_input_streaming", "max_characters"}
    )


class Tool(_Part):
    """A function that the model may call, a tool of Anthropic, or as ``mcp_toolset`` the tools of an MCP server."""

    name: str = Field(default="", max_length=MAX_NAME_LENGTH)
    type: str | None = Field(default=None, max_length=MAX_NAME_LENGTH)
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    display_width_px: int | None = Field(default=None, ge=1, description="Width of the screen, for `computer_…`.")
    display_height_px: int | None = Field(default=None, ge=1, description="Height of the screen, for `computer_…`.")
    display_number: int | None = Field(default=None, description="Number of the X display, for `computer_…`.")
    mcp_server_name: str | None = Field(
        default=None,
        max_length=MAX_NAME_LENGTH,
        description="Of an `mcp_toolset`: one of `mcp_servers`, or a configured MCP server. Where a request names MCP "
        "servers, the model may call the tools of these alone.",
    )
    default_config: ToolSettings | None = Field(default=None, description="Of an `mcp_toolset`: for all its tools.")
    configs: Annotated[dict[str, ToolSettings], at_most(MAX_TOOLS)] | None = Field(
        default=None, description="Of an `mcp_toolset`: for single tools, by their names."
    )


class Choice(_Part):
    """Anthropic's ``tool_choice``."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


def _lines(description: str) -> dict[str, Any]:
    return {"type": "integer", "minimum": 0, "description": description}


def _point(description: str) -> dict[str, Any]:
    return {
        "type": "array",
        "items": {"type": "integer"},
        "minItems": 2,
        "maxItems": 2,
        "description": description,
    }


_EDITS: Final = {
    "path": _text("Absolute path of a file or folder."),
    "view_range": _point("For view: the first and the last line to show; -1 is the end of the file."),
    "file_text": _text("For create: the content of the new file."),
    "old_str": _text("For str_replace: the text to replace, which must occur exactly once."),
    "new_str": _text("For str_replace: the text in its place."),
    "insert_line": _lines("For insert: the line after which the text is inserted; 0 is the beginning."),
    "insert_text": _text("For insert: the text to insert."),
}


def _object(command: str, commands: Sequence[str], properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {command: {"type": "string", "enum": list(commands)}, **properties},
        "required": [command],
    }


# Kind of a tool that the client runs -> what it does, and the schema of its input. The kind is the type without date.
_CLIENT_TOOLS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = MappingProxyType(
    {
        "bash": (
            "Run a command in a bash session, which persists between calls, and return its output.",
            {
                "type": "object",
                "properties": {
                    "command": _text("The command to run. Required unless the tool is being restarted."),
                    "restart": {"type": "boolean", "description": "Whether to restart the session instead."},
                },
            },
        ),
        "text_editor": (
            "View, create and edit text files.",
            _object("command", ("view", "create", "str_replace", "insert"), _EDITS),
        ),
        "computer": (
            "Control a computer: take screenshots, and use its mouse and keyboard.",
            _object(
                "action",
                (
                    *("screenshot", "key", "type", "mouse_move", "left_click", "left_click_drag", "right_click"),
                    *("middle_click", "double_click", "triple_click", "left_mouse_down", "left_mouse_up", "scroll"),
                    *("hold_key", "wait", "cursor_position", "zoom"),
                ),
                {
                    "coordinate": _point("x and y in pixels from the top left."),
                    "start_coordinate": _point("For left_click_drag: where it begins."),
                    "text": _text("For type: the text. For key and hold_key: the keys, such as ctrl+s."),
                    "scroll_direction": {"type": "string", "enum": ["up", "down", "left", "right"]},
                    "scroll_amount": _lines("For scroll: number of clicks of the wheel."),
                    "duration": {"type": "number", "description": "For hold_key and wait: seconds."},
                    "region": {
                        "type": "array",
                        "items": {"type": "integer"},
                        "minItems": 4,
                        "maxItems": 4,
                        "description": "For zoom: left, top, right and bottom in pixels.",
                    },
                },
            ),
        ),
        "memory": (
            "Keep notes between conversations, as files below /memories. View that folder before a task.",
            _object(
                "command",
                ("view", "create", "str_replace", "insert", "delete", "rename"),
                {
                    **_EDITS,
                    "old_path": _text("For rename: the present path."),
                    "new_path": _text("For rename: the new path."),
                },
            ),
        ),
    }
)


@dataclass(frozen=True, slots=True)
class OfferedTools:
    """The tools of a request as the model sees them.

    Attributes:
        functions: in OpenAI's shape.
        choice: whether one must be called, and which.
    """

    functions: tuple[dict[str, Any], ...]
    choice: ToolChoice


def tool_sets_of(tools: Sequence[Tool]) -> list[ToolSet]:
    """Return the tools of the type ``mcp_toolset``.

    Raises:
        InvalidRequest: one does not name its server.
    """
    sets: list[ToolSet] = []
    for index, tool in enumerate(tools):
        if tool.type != _TOOL_SET:
            continue
        param = f"tools[{index}]"
        if not tool.mcp_server_name:
            raise InvalidRequest(f"'{param}': An mcp_toolset must have an mcp_server_name.", f"{param}.mcp_server_name")
        sets.append(ToolSet(tool.mcp_server_name, tool.default_config or ToolSettings(), tool.configs or {}, param))
    return sets


def left_out_of(tools: Sequence[Tool], choice: Choice | None) -> list[str]:
    """Return the parts of a request that have no effect, such as ``tools[2] (web_search_20250305)``.

    They are the tools that run on Anthropic's servers, and a choice of one of these: the model cannot be made to call
    what it is not offered.
    """
    others = [(index, tool) for index, tool in enumerate(tools) if _runs_elsewhere(tool)]
    left_out = [f"tools[{index}] ({tool.type})" for index, tool in others]
    has_own = len(others) < len(tools)
    match choice:
        case Choice(type="any") if others and not has_own:
            left_out.append("tool_choice")
        case Choice(type="tool", name=name) if name in {tool.name or tool.type for _, tool in others}:
            left_out.append("tool_choice")
    return left_out


def offered_tools(tools: Sequence[Tool], choice: Choice | None, served: Sequence[ServerTool] = ()) -> OfferedTools:
    """Return the tools that the model may call.

    Args:
        tools: the field ``tools``.
        choice: the field ``tool_choice``.
        served: tools that this server runs; ``choice`` may name them as the model does.

    Raises:
        InvalidRequest: a function has no name, or ``choice`` names or requires a tool that the request does not have.
    """
    functions: list[dict[str, Any]] = []
    others: list[str | None] = []
    for index, tool in enumerate(tools):
        function = _function(tool, index)
        if function is not None:
            functions.append({"type": "function", "function": function})
        elif tool.type != _TOOL_SET:
            others.append(tool.name or tool.type)
    names = [*(each["function"]["name"] for each in functions), *(tool.name for tool in served)]
    chosen: ToolChoice = "auto"
    match choice:
        case Choice(type="any") if names:
            chosen = "required"
        case Choice(type="any") if not others:
            raise InvalidRequest("'tool_choice' is 'any', but there are no tools. Give some in 'tools'.", "tools")
        case Choice(type="tool", name=name) if name in names:
            chosen = NamedTool(name or "")
        case Choice(type="tool", name=name) if name not in others:
            known = ", ".join(names) or "none"
            raise InvalidRequest(
                f"'tool_choice' names '{name}', which is not one of the tools: {known}.", "tool_choice"
            )
        case Choice(type="none"):
            chosen = "none"
    return OfferedTools(tuple(functions), chosen)


def _is_custom(tool: Tool) -> bool:
    return tool.type in (None, "custom") or (tool.input_schema is not None and _kind(tool) not in _CLIENT_TOOLS)


def _kind(tool: Tool) -> str:
    """Return the type of a tool without its date."""
    return (tool.type or "").rpartition("_")[0]


def _runs_elsewhere(tool: Tool) -> bool:
    return tool.type != _TOOL_SET and not _is_custom(tool) and _kind(tool) not in _CLIENT_TOOLS


def _function(tool: Tool, index: int) -> dict[str, Any] | None:
    """Return a tool as a function in OpenAI's shape; None if it runs on Anthropic's servers, or is one of MCP."""
    kind = _kind(tool)
    if tool.type == _TOOL_SET:
        return None
    if _is_custom(tool):
        if not tool.name:
            raise InvalidRequest(f"'tools[{index}]': A tool must have a name.", f"tools[{index}].name")
        description, schema = tool.description, tool.input_schema
    elif kind in _CLIENT_TOOLS:
        description, schema = _CLIENT_TOOLS[kind][0], dict(_CLIENT_TOOLS[kind][1])
        if tool.display_width_px is not None and tool.display_height_px is not None:
            description += f" The screen has {tool.display_width_px} x {tool.display_height_px} pixels."
    else:
        return None
    function = {
        "name": tool.name or kind,
        "description": description,
        "parameters": schema,
        "strict": tool.strict,
    }
    return {key: value for key, value in function.items() if value is not None}
