"""The calls of a model as output items of the called tools, and the items of a history as calls."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any, Final

from modelyard.api.openai.responses.tools import OfferedTool
from modelyard.api.openapi.answers_responses import (
    ApplyPatchCallItem,
    CustomToolCallItem,
    FunctionCallItem,
    LocalShellCallItem,
    ShellCallItem,
    ToolSearchCallItem,
)

BuiltInCall = LocalShellCallItem | ShellCallItem | ApplyPatchCallItem | ToolSearchCallItem
"""The calls whose arguments are fields of the item: they are complete before the item begins."""

_PATCHES: Final = ("create_file", "update_file", "delete_file")


def new_id(prefix: str) -> str:
    """Return a new id, such as ``msg_0f…``."""
    return f"{prefix}_{uuid.uuid4().hex}"


def function_call(call_id: str, function: str, tool: OfferedTool | None) -> FunctionCallItem:
    """Return the item of a call that has begun. tool None: the model called a function that was not offered."""
    item: FunctionCallItem = {
        "type": "function_call",
        "id": new_id("fc"),
        "call_id": call_id,
        "name": function if tool is None else tool.name,
        "arguments": "",
        "status": "in_progress",
    }
    if tool is not None and tool.namespace is not None:
        item["namespace"] = tool.namespace
    return item


def custom_call(call_id: str, tool: OfferedTool) -> CustomToolCallItem:
    """Return the item of a call of a custom tool that has begun."""
    item: CustomToolCallItem = {
        "type": "custom_tool_call",
        "id": new_id("ctc"),
        "call_id": call_id,
        "name": tool.name,
        "input": "",
        "status": "in_progress",
    }
    if tool.namespace is not None:
        item["namespace"] = tool.namespace
    return item


def built_in_call(call_id: str, tool: OfferedTool, arguments: str) -> BuiltInCall | None:
    """Return the item of a call with these arguments; None: they lack what the item needs."""
    try:
        parsed = json.loads(arguments)
    except ValueError:
        return None
    if not isinstance(parsed, dict):
        return None
    match tool.kind:
        case "local_shell":
            return _local_shell_call(call_id, parsed)
        case "shell":
            return _shell_call(call_id, parsed)
        case "apply_patch":
            return _apply_patch_call(call_id, parsed)
        case "tool_search":
            return {
                "type": "tool_search_call",
                "id": new_id("tsc"),
                "call_id": call_id,
                "arguments": parsed,
                "execution": "client",
                "status": "in_progress",
            }
    return None


def _local_shell_call(call_id: str, arguments: Mapping[str, Any]) -> LocalShellCallItem | None:
    command = _texts(arguments.get("command"))
    if not command:
        return None
    action: dict[str, Any] = {"type": "exec", "command": command, "env": {}}
    action |= {name: arguments[name] for name in ("working_directory", "timeout_ms") if name in arguments}
    return {
        "type": "local_shell_call",
        "id": new_id("lsh"),
        "call_id": call_id,
        "action": action,
        "status": "in_progress",
    }


def _shell_call(call_id: str, arguments: Mapping[str, Any]) -> ShellCallItem | None:
    commands = _texts(arguments.get("commands"))
    if not commands:
        return None
    return {
        "type": "shell_call",
        "id": new_id("sh"),
        "call_id": call_id,
        "action": {
            "commands": commands,
            "timeout_ms": arguments.get("timeout_ms"),
            "max_output_length": arguments.get("max_output_length"),
        },
        "environment": None,
        "status": "in_progress",
    }


def _apply_patch_call(call_id: str, arguments: Mapping[str, Any]) -> ApplyPatchCallItem | None:
    match arguments:
        case {"type": str(kind), "path": str(path)} if kind in _PATCHES:
            operation: dict[str, Any] = {"type": kind, "path": path}
        case _:
            return None
    if kind != "delete_file":
        operation["diff"] = str(arguments.get("diff") or "")
    return {
        "type": "apply_patch_call",
        "id": new_id("apc"),
        "call_id": call_id,
        "operation": operation,
        "status": "in_progress",
    }


def _texts(value: Any) -> list[str]:
    """Return a list of texts as it is, and one text as a list; []: it is neither."""
    if isinstance(value, str):
        return [value]
    return value if isinstance(value, list) and all(isinstance(each, str) for each in value) else []
