"""Tools that the server runs when a model calls them, from whatever source."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from modelyard.yard.requests.context import Caller


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool has returned, or why it failed.

    Attributes:
        text: as the model reads it. It is content: control tokens do not count in it.
        is_error: whether the tool failed, was not approved, or took too long.
        is_cut: whether the text is shorter than what the tool returned; the text says so.
    """

    text: str
    is_error: bool = False
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class ToolProgress:
    """How far a call of a tool is, as its source reports it.

    Attributes:
        progress: grows with every report.
        total: what it grows to; None: unknown.
        message: what the tool does at the moment; "" where it says nothing.
    """

    progress: float
    total: float | None = None
    message: str = ""


class ReportProgress(Protocol):
    """Takes reports of a running call. Called on the event loop."""

    def __call__(self, progress: ToolProgress, /) -> None:
        """Take one report."""


class ToolFunction(Protocol):
    """Runs a tool."""

    def __call__(self, arguments: Mapping[str, Any], report: ReportProgress, /) -> Awaitable[ToolResult]:
        """Run the tool within the bounds of its source. Cancelling the call cancels the tool.

        What goes wrong is a result with ``is_error``. It raises nothing but ``asyncio.CancelledError``.
        """


@dataclass(frozen=True, slots=True)
class ServerTool:
    """A tool that the server runs.

    Attributes:
        name: as models call it: 1 to 64 letters, digits, ``_`` and ``-``; unique among the tools of the server.
        server: label of its source, such as the name of an MCP server.
        own_name: its name at its source.
        description: what it does, for the model.
        parameters: JSON schema of its arguments.
        needs_approval: whether somebody must approve each call before it runs.
        is_read_only: whether its source says that it changes nothing.
        run: runs it.
    """

    name: str
    server: str
    own_name: str
    description: str
    parameters: Mapping[str, Any] = field(repr=False)
    run: ToolFunction = field(repr=False, compare=False)
    needs_approval: bool = False
    is_read_only: bool = False

    @property
    def definition(self) -> dict[str, Any]:
        """The tool as a function in OpenAI's shape, as chat templates take it."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}


class ToolSource(Protocol):
    """Where tools of the server come from: MCP servers, or functions of a Python program."""

    def tools(self, model: str, caller: Caller) -> Sequence[ServerTool]:
        """Return the tools that ``model``, by id, may call for ``caller``, in a stable order."""

    def connected_servers(self, model: str, caller: Caller) -> int | None:
        """Return how many MCP servers are connected of those that ``model`` may use for ``caller``.

        None where the source has nothing to do with MCP, or where no server is configured: its tools do not count as
        those of MCP servers.
        """
