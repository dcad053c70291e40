"""What a program sees of the tools that its models may call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelyard.agent.tools import ServerTool


@dataclass(frozen=True, slots=True)
class ToolInfo:
    """A tool that a model may call while it answers.

    Attributes:
        name: as models call it.
        server: name of its MCP server; "program" for a function of the program.
        description: for the model.
        parameters: JSON schema of its arguments.
        needs_approval: whether each call waits for its approval.
    """

    name: str
    server: str
    description: str
    parameters: Mapping[str, Any] = field(repr=False)
    needs_approval: bool = False

    @staticmethod
    def of(tool: ServerTool) -> ToolInfo:
        """Return what is public of a tool."""
        return ToolInfo(tool.name, tool.server, tool.description, tool.parameters, tool.needs_approval)
