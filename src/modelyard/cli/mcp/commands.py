"""The commands below ``modelyard mcp``."""

from __future__ import annotations

import typer

from modelyard.cli.command_line import CommandGroup, SingleCommand
from modelyard.cli.mcp.call import call_tool
from modelyard.cli.mcp.check import check
from modelyard.cli.mcp.list import list_tools
from modelyard.cli.mcp.serve import serve_stdio

mcp = typer.Typer(
    cls=CommandGroup,
    help="Check MCP servers, call their tools, and be one.",
    add_completion=False,
    no_args_is_help=True,
)
mcp.command("check", cls=SingleCommand)(check)
mcp.command("list", cls=SingleCommand)(list_tools)
mcp.command("call", cls=SingleCommand)(call_tool)
mcp.command("serve", cls=SingleCommand)(serve_stdio)
