"""The tools of /v1/responses as functions that a model calls.

A tool that the client runs becomes a function, and its calls come back as items of the tool's own type. Tools of
MCP servers are run by this server. A tool that runs on OpenAI's servers is left out, because nothing runs it here.

Source: https://platform.openai.com/docs/api-reference/responses/create#responses-create-tools.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from modelyard.agent.tools import ServerTool
from modelyard.api.openai.responses.mcp_tools import McpFields, named_servers
from modelyard.api.openai.tools import (
    AllowedTools,
    AllowedToolsChoice,
    FunctionDefinition,
    FunctionName,
    NamedFunction,
    ToolChoiceField,
    ToolDefinition,
    Tools,
    allowed_server_tools,
    chosen_tools,
)
from modelyard.api.serving.request_servers import NamedServer
from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import ToolChoice as PromptToolChoice

ToolKind = Literal["function", "custom", "local_shell", "shell", "apply_patch", "tool_search"]
"""The tools that the client runs. Those after "custom" have the function that ``_BUILT_IN`` describes."""

_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]{1,128}")


class Tool(McpFields):
    """A tool that the model may call, without the nesting of chat completions."""

    type: str = Field(
        description="`function`, `custom`, `namespace`, `local_shell`, `shell`, `apply_patch`, `tool_search` with the "
        "execution `client`, or `mcp` for the tools of an MCP server, which this server runs. Tools of other types, "
        "and an `mcp` with a `connector_id` or a `tunnel_id`, run on OpenAI's servers: they are left out, and listed "
        "in the header `x-modelyard-ignored`."
    )
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    format: dict[str, Any] | None = Field(
        default=None,
        description="Of a `custom` tool: the grammar of its input. A regular expression is enforced; a grammar in Lark "
        "is shown to the model, and listed in the header `x-modelyard-ignored`.",
    )
    tools: Tools[Tool] | None = Field(default=None, description="The tools of a `namespace`.")
    execution: str | None = Field(default=None, description="Who runs a `tool_search`: `client` or `server`.")


class ToolChoice(BaseModel):
    """The tool that the model must call, or the tools that it may call."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True, protected_namespaces=())

    type: str
    name: str | None = None
    namespace: str | None = Field(default=None, description="The namespace of the tool.")
    server_label: str | None = Field(
        default=None, description="Of an `mcp`: the MCP server, of whose tools the model must call one."
    )
    mode: Literal["auto", "required"] = "auto"
    tools: Tools[ToolChoice] = []


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """One tool as the model sees it, and how its calls come back.

    Attributes:
        definition: the function that the model calls.
        kind: the tool of the client.
        name: its name without its namespace.
        namespace: its namespace; None: it has none.
    """

    definition: ToolDefinition
    kind: ToolKind
    name: str
    namespace: str | None = None

    @property
    def function(self) -> str:
        """The name of the function that the model calls."""
        return self.definition.function.name


@dataclass(frozen=True, slots=True)
class OfferedTools:
    """The tools of one request.

    Attributes:
        tools: those that the model may call, by the name of their function.
        ignored: the paths of the parts that have no effect.
        has_left_out: whether a tool was left out because it does not run here.
        served: those that this server runs; none has the name of one of ``tools``.
    """

    tools: Mapping[str, OfferedTool]
    ignored: tuple[str, ...] = ()
    has_left_out: bool = False
    served: tuple[ServerTool, ...] = ()

    @property
    def definitions(self) -> list[ToolDefinition]:
        """The functions for the prompt."""
        return [tool.definition for tool in self.tools.values()]


def mcp_servers_of(tools: Sequence[Tool]) -> list[NamedServer]:
    """Return the MCP servers that the tools of a request name.

    Raises:
        InvalidRequest: as ``named_servers``.
    """
    paths = ((f"tools[{index}]", tool) for index, tool in enumerate(tools) if tool.type == "mcp")
    return named_servers([(path, tool) for path, tool in paths if _runs_here(tool)])


def offered_tools(tools: Sequence[Tool], found: Sequence[Tool] = (), served: Sequence[ServerTool] = ()) -> OfferedTools:
    """Return the tools of a request as functions.

    Args:
        tools: the field ``tools``.
        found: tools that items of the input add, such as those that a search has found; one that has the name of
            another tool replaces it.
        served: tools that this server runs; one that has the name of another tool is left out.

    Raises:
        InvalidRequest: a tool lacks its name, or two have the same.
    """
    offered: dict[str, OfferedTool] = {}
    ignored: list[str] = []
    has_left_out = False
    for index, tool in enumerate(tools):
        path = f"tools[{index}]"
        if not _runs_here(tool):
            ignored.append(f"{path} ({tool.type})")
            has_left_out = True
        for each, own_path in _offered(tool, path, ignored):
            if each.function in offered:
                raise InvalidRequest(f"Two tools are named '{each.function}'. Give each a name of its own.", own_path)
            offered[each.function] = each
    for tool in found:
        offered |= {each.function: each for each, _ in _offered(tool, "input", [])}
    own = tuple(tool for tool in served if tool.name not in offered)
    return OfferedTools(offered, tuple(ignored), has_left_out, own)


def functions_after(
    choice: str | ToolChoice | None, offered: OfferedTools
) -> tuple[tuple[dict[str, Any], ...], PromptToolChoice]:
    """Return the client's tools that ``choice`` leaves the model, in OpenAI's shape, and whether it must call a tool.

    Raises:
        InvalidRequest: ``choice`` names or requires a tool that does not exist.
    """
    return chosen_tools(offered.definitions, choice_of(choice, offered)[0], [tool.name for tool in offered.served])


def served_after(choice: str | ToolChoice | None, offered: OfferedTools) -> tuple[ServerTool, ...]:
    """Return the tools of this server that ``choice`` leaves the model.

    Raises:
        InvalidRequest: ``choice`` lacks the name of a function.
    """
    return allowed_server_tools(choice_of(choice, offered)[0], offered.served) if offered.served else ()


def choice_of(choice: str | ToolChoice | None, offered: OfferedTools) -> tuple[ToolChoiceField | None, bool]:
    """Return the tool choice in the shape of chat completions, and whether it keeps its meaning.

    It loses its meaning where it asks for a tool that does not run here; the model may then call any tool.

    Raises:
        InvalidRequest: it lacks the name of a function.
    """
    match choice:
        case None | "none" | "auto":
            return choice, True
        case "required":
            has_tools = offered.tools or offered.served
            return ("required", True) if has_tools or not offered.has_left_out else (None, False)
        case ToolChoice(type="allowed_tools"):
            names = [name for tool in choice.tools for name in _chosen_names(tool, offered.served)]
            return (_allowed(choice.mode, names), True) if names or not choice.tools else (None, False)
        case ToolChoice(type="mcp", name=None):
            names = _chosen_names(choice, offered.served)
            return (_allowed("required", names), True) if names else (None, False)
        case ToolChoice():
            if not (names := _chosen_names(choice, offered.served)):
                return None, False
            return NamedFunction(type="function", function=FunctionName(name=names[0])), True
    raise InvalidRequest(f"'tool_choice' is '{choice}', which is not known.", "tool_choice")


def function_name(name: str, namespace: str | None) -> str:
    """Return the name of the function for a tool in a namespace; names of namespaces often end in ``__`` themselves."""
    if not namespace:
        return name
    return f"{namespace}{name}" if namespace.endswith("__") else f"{namespace}__{name}"


def _allowed(mode: Literal["auto", "required"], names: Sequence[str]) -> AllowedToolsChoice:
    functions = [NamedFunction(type="function", function=FunctionName(name=name)) for name in names]
    return AllowedToolsChoice(type="allowed_tools", allowed_tools=AllowedTools(mode=mode, tools=functions))


def _chosen_names(choice: ToolChoice, served: Sequence[ServerTool]) -> list[str]:
    """Return the functions of the tools that ``choice`` names: of an MCP server without a tool, all of its tools."""
    if choice.type != "mcp":
        return [] if (name := _chosen_name(choice)) is None else [name]
    own = (tool for tool in served if tool.server == choice.server_label)
    return [tool.name for tool in own if choice.name in (None, tool.own_name)]


def _chosen_name(choice: ToolChoice) -> str | None:
    if choice.type in ("function", "custom"):
        return function_name(choice.name or "", choice.namespace)
    return choice.type if choice.type in _BUILT_IN else None


def _runs_here(tool: Tool) -> bool:
    if tool.type == "tool_search":
        return tool.execution == "client"
    if tool.type == "mcp":
        extra = tool.model_extra or {}
        return not (extra.get("connector_id") or extra.get("tunnel_id"))
    return tool.type in ("function", "custom", "namespace") or tool.type in _BUILT_IN


def _offered(tool: Tool, path: str, ignored: list[str]) -> Iterator[tuple[OfferedTool, str]]:
    """Yield the functions of one tool with their paths in the body."""
    match tool.type:
        case "namespace":
            for index, each in enumerate(tool.tools or []):
                own_path = f"{path}.tools[{index}]"
                if each.type in ("function", "custom"):
                    yield _named(each, own_path, ignored, tool), own_path
                else:
                    ignored.append(f"{own_path} ({each.type})")
        case "function" | "custom":
            yield _named(tool, path, ignored), path
        case "local_shell" | "shell" | "apply_patch" | "tool_search" if _runs_here(tool):
            kind: ToolKind = tool.type
            description, parameters = _BUILT_IN[kind]
            # A search has the arguments that its client describes; those of the others are known, and can be enforced.
            own = tool.type == "tool_search" and tool.parameters is not None
            definition = FunctionDefinition(
                name=tool.type,
                description=tool.description or description,
                parameters=tool.parameters if own else parameters,
                strict=None if own else True,
            )
            yield OfferedTool(ToolDefinition(type="function", function=definition), kind, tool.type), path


def _named(tool: Tool, path: str, ignored: list[str], within: Tool | None = None) -> OfferedTool:
    namespace = None if within is None else within.name
    name = function_name(tool.name or "", namespace)
    if not tool.name or not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"'{path}': A tool must have a name of 1 to 128 letters, digits, and the characters '_', '.' and '-', its "
            "namespace included.",
            f"{path}.name",
        )
    description = tool.description
    if within is not None and within.description:
        description = "\n\n".join(filter(None, (description, within.description)))
    if tool.type == "custom":
        definition = _custom(tool, name, description, path, ignored)
        return OfferedTool(ToolDefinition(type="function", function=definition), "custom", tool.name, namespace)
    definition = FunctionDefinition(name=name, description=description, parameters=tool.parameters, strict=tool.strict)
    return OfferedTool(ToolDefinition(type="function", function=definition), "function", tool.name, namespace)


def _custom(tool: Tool, name: str, description: str | None, path: str, ignored: list[str]) -> FunctionDefinition:
    """Return a custom tool as a function of one text, ``input``."""
    text: dict[str, Any] = {"type": "string"}
    match tool.format:
        case None | {"type": "text"}:
            strict = None
        case {"type": "grammar", "syntax": "regex", "definition": str(regex)}:
            # A pattern of JSON schema may match anywhere in the text; the whole text is to match.
            text["pattern"], strict = f"^(?:{regex})$", True
        case {"type": "grammar", "definition": str(grammar)}:
            ignored.append(f"{path}.format")
            description = "\n\n".join(filter(None, (description, f"The input follows this grammar:\n{grammar}")))
            strict = None
        case _:
            raise InvalidRequest(
                f"'{path}.format': It must have the type 'text', or the type 'grammar' with a syntax and a definition.",
                f"{path}.format",
            )
    parameters = {"type": "object", "properties": {"input": text}, "required": ["input"], "additionalProperties": False}
    return FunctionDefinition(name=name, description=description, parameters=parameters, strict=strict)


def _object(properties: Mapping[str, Any], required: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


_TIMEOUT: Final = {"type": "integer", "minimum": 0, "description": "Milliseconds until a command is ended."}
_STRINGS: Final = {"type": "array", "items": {"type": "string"}}

# The arguments are the fields of the tools' calls.
# Source: ``LocalShellCallAction``, ``ShellCallAction`` and ``ApplyPatchOperation`` of OpenAI's API.
_BUILT_IN: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "local_shell": (
        "Run a command on the user's machine and return its output.",
        _object(
            {
                "command": {**_STRINGS, "description": "The program and its arguments."},
                "working_directory": {"type": "string", "description": "Folder to run it in."},
                "timeout_ms": _TIMEOUT,
            },
            ["command"],
        ),
    ),
    "shell": (
        "Run shell commands on the user's machine and return their output.",
        _object({"commands": {**_STRINGS, "description": "The commands."}, "timeout_ms": _TIMEOUT}, ["commands"]),
    ),
    "apply_patch": (
        "Create, update or delete one file of the user.",
        _object(
            {
                "type": {"type": "string", "enum": ["create_file", "update_file", "delete_file"]},
                "path": {"type": "string", "description": "Path of the file."},
                "diff": {"type": "string", "description": "The change, as a V4A diff; none to delete the file."},
            },
            ["type", "path"],
        ),
    ),
    "tool_search": (
        "Search for further tools.",
        _object({"query": {"type": "string", "description": "What the tool is to do."}}, ["query"]),
    ),
}
