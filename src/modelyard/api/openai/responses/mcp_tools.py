"""The tools of MCP servers that a request names: which servers, which of their tools, and which calls need an approval.

Source: https://platform.openai.com/docs/guides/tools-connectors-mcp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from modelyard.agent.tools import ServerTool
from modelyard.api.openai.schema import MAX_NAME_LENGTH
from modelyard.api.openai.tools import Tools
from modelyard.api.serving.bounded_items import at_most
from modelyard.api.serving.request_servers import NamedServer
from modelyard.errors import InvalidRequest
from modelyard.mcp.request_servers import MAX_HEADERS, RequestServer


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True, protected_namespaces=())


class ToolFilter(_Part):
    """Some tools of an MCP server."""

    tool_names: Tools[str] | None = Field(default=None, description="Names of tools, as the MCP server has them.")
    read_only: bool | None = Field(
        default=None, description="Whether the tools change nothing, by the hint that the MCP server gives."
    )

    def has(self, tool: ServerTool) -> bool:
        """Whether ``tool`` is one of them."""
        is_named = self.tool_names is None or tool.own_name in self.tool_names
        return is_named and self.read_only in (None, tool.is_read_only)


class ApprovalFilters(_Part):
    """Which calls need an approval."""

    always: ToolFilter | None = Field(default=None, description="Tools whose calls need an approval.")
    never: ToolFilter | None = Field(default=None, description="Tools whose calls need none.")


class McpFields(_Part):
    """The fields of a tool of the type ``mcp``."""

    server_label: str | None = Field(
        default=None,
        max_length=MAX_NAME_LENGTH,
        description="Of an `mcp`: the name of a configured MCP server, or with `server_url` the name that its items "
        "have. Where a request has tools of this type, the model may call those of the named servers alone.",
    )
    server_url: str | None = Field(
        default=None,
        description="Of an `mcp`: a server to connect to for this request. Its host must be listed in "
        "`[mcp] allow_request_servers`.",
    )
    allowed_tools: Tools[str] | ToolFilter | None = Field(
        default=None, description="Of an `mcp`: the tools that the model may call; omitted: all."
    )
    headers: Annotated[dict[str, str], at_most(MAX_HEADERS)] | None = Field(
        default=None, description="Of an `mcp` with `server_url`: headers for the server. They are not stored."
    )
    authorization: str | None = Field(
        default=None, description="Of an `mcp` with `server_url`: a bearer token for the server. It is not stored."
    )
    require_approval: Literal["always", "never"] | ApprovalFilters | None = Field(
        default=None,
        description="Of an `mcp`: which calls the client approves before they run; omitted: with `server_url` all, "
        "else those of the configuration, which a request can only add to.",
    )


def named_servers(tools: Sequence[tuple[str, McpFields]]) -> list[NamedServer]:
    """Return the servers that tools of the type ``mcp`` name.

    Args:
        tools: each with its path in the body.

    Raises:
        InvalidRequest: a tool lacks its label, two have the same, or a configured server gets headers.
    """
    named: dict[str, NamedServer] = {}
    for param, tool in tools:
        label = tool.server_label
        if not label:
            raise InvalidRequest(f"'{param}': A tool of type 'mcp' must have a server_label.", f"{param}.server_label")
        if label in named:
            raise InvalidRequest(
                f"Two MCP servers have the server_label '{label}'. Give each one of its own.", f"{param}.server_label"
            )
        if tool.server_url is None and (tool.headers or tool.authorization):
            raise InvalidRequest(
                f"'{param}': headers and authorization are for servers with a server_url; what the configured server "
                f"'{label}' is sent, its configuration decides. Leave them out, or give the server_url.",
                param,
            )
        at = None
        if tool.server_url is not None:
            at = RequestServer(label, tool.server_url, tool.headers or {}, tool.authorization)
        named[label] = NamedServer(label, param, at, partial(_selected, tool))
    return list(named.values())


def _selected(fields: McpFields, tools: Sequence[ServerTool]) -> list[ServerTool]:
    """Return those of a server's ``tools`` that the model may call, with the approvals that they need."""
    match fields.allowed_tools:
        case None:
            allowed = list(tools)
        case ToolFilter() as chosen:
            allowed = [tool for tool in tools if chosen.has(tool)]
        case names:
            allowed = [tool for tool in tools if tool.own_name in names]
    return [replace(tool, needs_approval=tool.needs_approval or _needs_approval(fields, tool)) for tool in allowed]


def _needs_approval(fields: McpFields, tool: ServerTool) -> bool:
    is_of_request = fields.server_url is not None
    match fields.require_approval:
        case "always":
            return True
        case "never":
            return False
        case ApprovalFilters(always=always, never=never):
            if always is not None and always.has(tool):
                return True
            return is_of_request and (never is None or not never.has(tool))
    return is_of_request
