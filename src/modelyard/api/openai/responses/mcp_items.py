"""The items of MCP servers in /v1/responses: their tools, the calls that this server runs, and requests for approval.

Source: https://platform.openai.com/docs/guides/tools-connectors-mcp.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from modelyard.agent.events import RunningCall
from modelyard.agent.tools import ServerTool, ToolResult
from modelyard.api.openai.responses.calls import new_id
from modelyard.api.openapi.answers_responses import McpApprovalRequestItem, McpCallItem, McpListedTool, McpListToolsItem

_OWN_ID: Final = re.compile(r"mcp_(\d{1,4})_(.+)", re.ASCII | re.DOTALL)

Listing = Mapping[str, frozenset[str]]
"""The own names of tools, by the label of their server."""


def lists_of(tools: Iterable[ServerTool], known: Listing) -> list[McpListToolsItem]:
    """Return an item for each server of ``tools``, but not for those whose tools the conversation lists already."""
    servers: dict[str, list[ServerTool]] = {}
    for tool in tools:
        servers.setdefault(tool.server, []).append(tool)
    return [
        _list_item(server, own)
        for server, own in servers.items()
        if known.get(server) != frozenset(tool.own_name for tool in own)
    ]


def _list_item(server: str, tools: Sequence[ServerTool]) -> McpListToolsItem:
    listed = [_listed_tool(tool) for tool in tools]
    return {"type": "mcp_list_tools", "id": new_id("mcpl"), "server_label": server, "tools": listed, "error": None}


def _listed_tool(tool: ServerTool) -> McpListedTool:
    return {
        "name": tool.own_name,
        "description": tool.description or None,
        "input_schema": dict(tool.parameters),
        "annotations": {"readOnlyHint": True} if tool.is_read_only else None,
    }


def begun_call(running: RunningCall, approval_request_id: str | None) -> McpCallItem:
    """Return the item of a call that runs, without its arguments, which are an event of their own."""
    return {
        "type": "mcp_call",
        # A conversation that comes back has the call in the turn, and under the id, that it was made with.
        "id": f"mcp_{running.round}_{running.call.id}",
        "status": "in_progress",
        "server_label": running.tool.server,
        "name": running.tool.own_name,
        "arguments": "",
        "output": None,
        "error": None,
        "approval_request_id": approval_request_id,
    }


def end_call(item: McpCallItem, result: ToolResult) -> None:
    """Complete the item of a call with its result."""
    if result.is_error:
        item["status"] = "failed"
        item["error"] = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": result.text}]}
    else:
        item["status"] = "completed"
        item["output"] = result.text


def approval_request(running: RunningCall, approval_id: str) -> McpApprovalRequestItem:
    """Return the item that asks the client to approve a call."""
    return {
        "type": "mcp_approval_request",
        "id": f"mcpr_{approval_id}",
        "server_label": running.tool.server,
        "name": running.tool.own_name,
        "arguments": running.call.arguments,
    }


def call_of(item_id: str) -> tuple[str, str]:
    """Return the id of the call that an ``mcp_call`` of that id stands for, and its round, "" where it is not known."""
    own = _OWN_ID.fullmatch(item_id)
    return (own[2], own[1]) if own is not None else (item_id, "")


def result_text(output: Any, error: Any) -> str | None:
    """Return the result of an ``mcp_call`` as the model has read it; None: the item has none.

    Args:
        output: the field of the item.
        error: the field of the item: an object of one of OpenAI's types of errors, or a text.
    """
    if isinstance(output, str):
        return output
    match error:
        case str() if error:
            return error
        case {"type": "mcp_tool_execution_error", "content": list(content)}:
            texts = (each.get("text") for each in content if isinstance(each, Mapping))
            return "\n".join(text for text in texts if isinstance(text, str))
        case {"message": str(message)}:
            return message
    return None
