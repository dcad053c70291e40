"""``modelyard mcp list``: the tools of MCP servers, of a configuration or of a running server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlencode

import typer

from modelyard.cli.client.options import JsonOption, KeyFileOption, UrlOption
from modelyard.cli.client.output import print_json
from modelyard.cli.exit_codes import FAILURE
from modelyard.cli.mcp.configured import SOUND_STATES, is_given, mcp_configuration, with_clients
from modelyard.cli.messages import print_warning
from modelyard.cli.options import ConfigArgument, ConfigOption, McpConfigOption
from modelyard.cli.usage import UsageError
from modelyard.system.printable import printable

if TYPE_CHECKING:
    from pathlib import Path

    from modelyard.config import Config
    from modelyard.mcp.clients import McpClients

_MAX_SUMMARY_CHARS: Final = 200

_Tools = Sequence[Mapping[str, Any]]
_Failed = list[tuple[str, str]]
"""Servers that are not connected, with the reason."""


def list_tools(
    file: ConfigArgument = None,
    config: ConfigOption = None,
    mcp_config: McpConfigOption = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="MODEL", help="Only the tools that this model may call.")
    ] = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the tools that models may call, under the names by which they call them.

    Without a file they are those of a running server.
    """
    if not is_given(file, config, mcp_config):
        tools, failed = _of_server(url, key_file, model)
    elif url is None:
        tools, failed = _of_configuration(mcp_configuration(file, config, mcp_config, command="mcp list"), model)
    else:
        raise UsageError("--url names a server, and a configuration is given. Leave one of them out.")
    if as_json:
        print_json({"tools": tools})
    else:
        _print(tools)
    for name, reason in failed:
        print_warning(f"{name} is not connected: {reason}")
    if failed:
        raise typer.Exit(FAILURE)


def _of_configuration(config: Config, model: str | None) -> tuple[_Tools, _Failed]:
    from modelyard.errors import ModelNotFound
    from modelyard.yard.requests.context import Caller

    named = next((each.id for each in config.models if model in each.names), None)
    if model is not None and named is None:
        raise ModelNotFound(model, tuple(each.id for each in config.models))

    async def read(clients: McpClients) -> tuple[_Tools, _Failed]:
        await clients.wait_settled()
        tools = clients.all_tools() if named is None else clients.tools(named, Caller())
        failed = [(status.name, status.reason) for status in clients.statuses() if status.state not in SOUND_STATES]
        return [
            {
                "name": tool.name,
                "server": tool.server,
                "own_name": tool.own_name,
                "description": tool.description,
                "parameters": dict(tool.parameters),
                "needs_approval": tool.needs_approval,
                "read_only": tool.is_read_only,
            }
            for tool in tools
        ], failed

    return with_clients(config, read)


def _of_server(url: str | None, key_file: Path | None, model: str | None) -> tuple[_Tools, _Failed]:
    from modelyard.cli.client.choose import choose_server
    from modelyard.cli.client.connection import get

    server = choose_server(url, key_file, only_looks=True)
    models = server.models
    names = [server.model_id(model)] if model is not None else [each["id"] for each in models]
    found: dict[str, Mapping[str, Any]] = {}
    for name in names:
        answer = get(server.address, f"/v1/agent/tools?{urlencode({'model': name})}")
        for tool in answer["data"]:
            found.setdefault(tool["name"], {key: value for key, value in tool.items() if key != "object"})
    servers = get(server.address, "/v1/agent/servers")["data"]
    failed = [(each["name"], each["reason"] or each["state"]) for each in servers if each["state"] not in SOUND_STATES]
    return list(found.values()), failed


def _print(tools: Sequence[Mapping[str, Any]]) -> None:
    from modelyard.cli.tables import print_table, table_console

    if not tools:
        typer.echo("There are no tools.")
        return
    rows = [
        (
            tool["name"],
            printable(tool["server"]),
            "needs approval" if tool["needs_approval"] else "",
            printable(tool["description"].strip().split("\n", 1)[0], _MAX_SUMMARY_CHARS),
        )
        for tool in tools
    ]
    print_table(table_console(), ("Tool", "Server", "", "What it does"), rows, prose=True)
