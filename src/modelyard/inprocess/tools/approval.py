"""A function of a program that approves the calls of tools."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

ApprovalCallback = Callable[["ToolApproval"], bool | str | Awaitable[bool | str]]
"""Decides about a call: True approves it; False denies it, and so does a text, which is the reason for the model."""


@dataclass(frozen=True, slots=True)
class ToolApproval:
    """A call of a tool that a function is asked to approve; see ``with_tool_approval``.

    Attributes:
        tool: name of the tool, as the model calls it.
        server: name of its MCP server; "program" for a function of the program.
        arguments: as the model has written them; they are not checked yet.
        model: id of the model that makes the call.
    """

    tool: str
    server: str
    arguments: Mapping[str, Any] = field(repr=False)
    model: str
