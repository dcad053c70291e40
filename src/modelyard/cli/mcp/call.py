"""``modelyard mcp call``: calls a tool of an MCP server, as a model would."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.cli.client.options import JsonOption
from modelyard.cli.client.output import print_json
from modelyard.cli.exit_codes import FAILURE
from modelyard.cli.mcp.configured import mcp_configuration, with_clients
from modelyard.cli.messages import print_error
from modelyard.cli.options import ConfigOption, McpConfigOption
from modelyard.cli.usage import UsageError, nearest
from modelyard.system.printable import printable_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelyard.agent.tools import ServerTool, ToolProgress, ToolResult
    from modelyard.mcp.clients import McpClients


def call_tool(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The tool, by its name in modelyard mcp list.")],
    arguments: Annotated[
        str, typer.Argument(metavar="JSON", help="Its arguments, a JSON object.", show_default=False)
    ] = "{}",
    config: ConfigOption = None,
    mcp_config: McpConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Call a tool of an MCP server, and print its result as a model reads it.

    The servers of the configuration are connected for this call; without one it is models.toml in the current folder. A
    running Modelyard takes no part in it. Progress goes to standard error. A tool that needs an approval is called at
    once: you approve of it.
    """
    given = _arguments(arguments)
    loaded = mcp_configuration(None, config, mcp_config, command="mcp call")

    async def call(clients: McpClients) -> tuple[str, ToolResult]:
        tool = await _tool(clients, name)
        return tool.name, await tool.run(given, _show)

    called, result = with_clients(loaded, call)
    if as_json:
        print_json({"tool": called, "is_error": result.is_error, "is_cut": result.is_cut, "text": result.text})
    elif result.is_error:
        print_error(printable_lines(result.text))
    else:
        typer.echo(printable_lines(result.text) if sys.stdout.isatty() else result.text)
    if result.is_error:
        raise typer.Exit(FAILURE)


def _arguments(text: str) -> dict[str, Any]:
    """Return the arguments of a call.

    Raises:
        UsageError: they are no JSON object.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f'The arguments are no JSON: {error}. Write: \'{{"path": "notes.txt"}}\'') from None
    except RecursionError:
        raise UsageError("The arguments nest too deep.") from None
    if not isinstance(value, dict):
        raise UsageError('The arguments must be a JSON object, such as \'{"path": "notes.txt"}\'.')
    return value


async def _tool(clients: McpClients, name: str) -> ServerTool:
    """Return the tool of a name, as soon as its server is connected.

    Raises:
        UsageError: no server has it.
    """
    settled = asyncio.ensure_future(clients.wait_settled())
    try:
        while (found := _named(clients.all_tools(), name)) is None and not settled.done():
            changed = asyncio.ensure_future(clients.next_change())
            await asyncio.wait((settled, changed), return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
    finally:
        settled.cancel()
    if found is not None:
        return found
    failed = [f"{each.name} ({each.reason})" for each in clients.statuses() if each.state == "failed"]
    known = [tool.name for tool in clients.all_tools()]
    missing = f" Not connected: {', '.join(failed)}." if failed else ""
    raise UsageError(f"'{name}' is no tool.{nearest(name, known) or ' modelyard mcp list shows all.'}{missing}")


def _named(tools: Sequence[ServerTool], name: str) -> ServerTool | None:
    """Return the tool that models call by that name, else the only one that has it at its server."""
    exact = next((tool for tool in tools if tool.name == name), None)
    own = [tool for tool in tools if tool.own_name == name]
    return exact or (own[0] if len(own) == 1 else None)


def _show(progress: ToolProgress) -> None:
    """Print a report of the tool's progress."""
    done = f"{progress.progress:g}" if progress.total is None else f"{progress.progress:g} of {progress.total:g}"
    typer.echo(f"{done} {progress.message}".rstrip(), err=True)
