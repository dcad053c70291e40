"""``modelyard mcp check``: connects to each MCP server of a configuration, and says what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from modelyard.cli.client.options import JsonOption
from modelyard.cli.client.output import print_json
from modelyard.cli.exit_codes import FAILURE
from modelyard.cli.mcp.configured import SOUND_STATES, mcp_configuration, with_clients
from modelyard.cli.options import ConfigArgument, ConfigOption, McpConfigOption

if TYPE_CHECKING:
    from modelyard.mcp.clients import McpClients
    from modelyard.mcp.connection import ServerStatus


def check(
    file: ConfigArgument = None,
    config: ConfigOption = None,
    mcp_config: McpConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Connect to each MCP server of a configuration, and show what it offers, or why it cannot be used.

    No model is loaded. Without a file, models.toml in the current folder is checked.
    """
    statuses = with_clients(mcp_configuration(file, config, mcp_config, command="mcp check"), _statuses)
    is_sound = all(status.state in SOUND_STATES for status in statuses)
    if as_json:
        print_json({"ok": is_sound, "servers": [_facts(status) for status in statuses]})
    else:
        _print(statuses)
    if not is_sound:
        raise typer.Exit(FAILURE)


async def _statuses(clients: McpClients) -> Sequence[ServerStatus]:
    await clients.wait_settled()
    return clients.statuses()


def _facts(status: ServerStatus) -> dict[str, object]:
    facts = asdict(status)
    del facts["retry_s"]
    return facts


def _print(statuses: Sequence[ServerStatus]) -> None:
    from modelyard.cli.tables import print_table, table_console

    rows = [
        (
            status.name,
            status.state,
            str(status.tools) if status.state == "connected" else "",
            "" if status.connect_s is None else f"{status.connect_s:.1f} s",
            status.transport,
            status.reason or status.title,
        )
        for status in statuses
    ]
    headings = ("Server", "State", "Tools", "Time", "Transport", "")
    print_table(table_console(), headings, rows, right=("Tools", "Time"), prose=True)
