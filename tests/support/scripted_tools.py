"""Tools of the server without a server of theirs: each test says what they do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.agent.tools import ReportProgress, ServerTool, ToolFunction, ToolResult
from modelyard.yard.requests.context import Caller

PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}


class ScriptedTools:
    """A source of tools.

    Args:
        tools: the tools of every model.
        connected: number of MCP servers that it says are connected; None: it has nothing to do with MCP.
    """

    def __init__(self, *tools: ServerTool, connected: int | None = None) -> None:
        self.offered: Sequence[ServerTool] = tools
        self.connected = connected

    def tools(self, _model: str, _caller: Caller) -> Sequence[ServerTool]:
        return self.offered

    def connected_servers(self, _model: str, _caller: Caller) -> int | None:
        return self.connected


def server_tool(name: str, run: ToolFunction, *, server: str = "calc", needs_approval: bool = False) -> ServerTool:
    """A tool of two whole numbers, ``a`` and ``b``."""
    return ServerTool(f"{server}_{name}", server, name, f"Does {name}.", PARAMETERS, run, needs_approval)


async def add(arguments: Mapping[str, Any], _report: ReportProgress) -> ToolResult:
    """Add two numbers."""
    return ToolResult(str(arguments.get("a", 0) + arguments.get("b", 0)))


async def fail(_arguments: Mapping[str, Any], _report: ReportProgress) -> ToolResult:
    """Fail, as a tool says it."""
    return ToolResult("The disk is full.", is_error=True)


class Gate:
    """A tool that waits until a test opens it.

    Attributes:
        started: how many calls have begun.
        cancelled: how many were cancelled.
    """

    def __init__(self) -> None:
        self.started = self.cancelled = 0
        self._changed = asyncio.Condition()
        self._open = asyncio.Event()

    def open(self) -> None:
        """Let all calls end."""
        self._open.set()

    async def wait_for(self, started: int = 0, cancelled: int = 0) -> None:
        """Wait until so many calls have begun, and so many were cancelled."""
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(lambda: self.started >= started and self.cancelled >= cancelled)

    async def __call__(self, _arguments: Mapping[str, Any], _report: ReportProgress) -> ToolResult:
        async with self._changed:
            self.started += 1
            self._changed.notify_all()
        try:
            await self._open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            async with self._changed:
                self._changed.notify_all()
            raise
        return ToolResult("open")
