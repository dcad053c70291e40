"""The MCP servers that a request of Anthropic's dialect names, and which of their tools its model may call.

Source: https://platform.claude.com/docs/en/agents-and-tools/mcp-connector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from modelyard.agent.tools import ServerTool
from modelyard.api.openai.schema import MAX_NAME_LENGTH
from modelyard.api.openai.tools import Tools
from modelyard.api.serving.request_servers import NamedServer
from modelyard.errors import InvalidRequest
from modelyard.mcp.request_servers import RequestServer


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True, protected_namespaces=())


class ToolConfiguration(_Part):
    """The older way to select tools of a server."""

    enabled: bool | None = Field(default=None, description="False: the model may call none of the tools.")
    allowed_tools: Tools[str] | None = Field(default=None, description="Names of tools; omitted: all.")


class McpServer(_Part):
    """An MCP server to connect to for this request."""

    type: Literal["url"]
    url: str = Field(description="Its address. The host must be listed in `[mcp] allow_request_servers`.")
    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH)] = Field(
        description="The name that the blocks of its calls have."
    )
    authorization_token: str | None = Field(default=None, description="A bearer token for the server.")
    tool_configuration: ToolConfiguration | None = Field(
        default=None, description="Which tools the model may call, where no `mcp_toolset` says so; omitted: all."
    )


class ToolSettings(_Part):
    """The settings of one tool, or of all tools of a server."""

    enabled: bool | None = Field(default=None, description="Whether the model may call it.")
    defer_loading: bool | None = Field(
        default=None,
        description="Has no effect: all tools are in the prompt. `true` is listed in `x-modelyard-ignored`.",
    )

    def without_effect(self) -> list[str]:
        """Return the settings that have no effect."""
        return ["defer_loading"] if self.defer_loading else []


@dataclass(frozen=True, slots=True)
class ToolSet:
    """What a tool of the type ``mcp_toolset`` says.

    Attributes:
        server: name of the server.
        default: settings of its tools.
        configs: settings of single tools, by name.
        param: its path in the body, for errors.
    """

    server: str
    default: ToolSettings
    configs: dict[str, ToolSettings]
    param: str


def named_servers(servers: Sequence[McpServer], tool_sets: Sequence[ToolSet]) -> list[NamedServer]:
    """Return the servers that a request names.

    Args:
        servers: the field ``mcp_servers``.
        tool_sets: of ``tools``. One whose server is not among ``servers`` names a configured server.

    Raises:
        InvalidRequest: two servers, or two tool sets of a server, have the same name.
    """
    by_server: dict[str, ToolSet] = {}
    for each in tool_sets:
        if each.server in by_server:
            raise InvalidRequest(
                f"'{each.param}': There is another mcp_toolset for the server '{each.server}'. Leave one out.",
                f"{each.param}.mcp_server_name",
            )
        by_server[each.server] = each
    named: dict[str, NamedServer] = {}
    for index, server in enumerate(servers):
        param = f"mcp_servers[{index}]"
        if server.name in named:
            raise InvalidRequest(
                f"Two MCP servers are named '{server.name}'. Give each a name of its own.", f"{param}.name"
            )
        at = RequestServer(server.name, server.url, authorization=server.authorization_token)
        selected = partial(_selected, by_server.get(server.name), server.tool_configuration)
        named[server.name] = NamedServer(server.name, param, at, selected)
    for name, each in by_server.items():
        if name not in named:
            named[name] = NamedServer(name, each.param, None, partial(_selected, each, None))
    return list(named.values())


def _selected(
    tool_set: ToolSet | None, older: ToolConfiguration | None, tools: Sequence[ServerTool]
) -> list[ServerTool]:
    """Return those of a server's ``tools`` that the model may call."""
    return [tool for tool in tools if _is_enabled(tool.own_name, tool_set, older)]


def _is_enabled(name: str, tool_set: ToolSet | None, older: ToolConfiguration | None) -> bool:
    if tool_set is not None:
        own = tool_set.configs.get(name)
        if own is not None and own.enabled is not None:
            return own.enabled
        if tool_set.default.enabled is not None:
            return tool_set.default.enabled
    if older is None:
        return True
    return older.enabled is not False and (older.allowed_tools is None or name in older.allowed_tools)
