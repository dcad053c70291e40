"""The command of a chat that is about tools of the server: which there are, and whether answers may call them."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from modelyard.cli.chat.commands import Command
from modelyard.cli.chat.session import Chat
from modelyard.errors import InvalidRequest
from modelyard.system.printable import printable

# Characters of a description that are shown.
_MAX_SUMMARY: Final = 120


def tools_command(chat: Chat, command: Command) -> None:
    """List the tools, or switch them on or off.

    Raises:
        InvalidRequest: the argument is neither on nor off.
        ServerUnusable: the server cannot be reached, or refuses.
    """
    match command.argument.lower():
        case "":
            _list(chat)
        case "on":
            chat.switches = replace(chat.switches, uses_tools=True)
            chat.terminal.note("The model may call tools.")
        case "off":
            chat.switches = replace(chat.switches, uses_tools=False)
            chat.terminal.note("The model is offered no tools.")
        case other:
            raise InvalidRequest(f"{command.typed} takes nothing, on or off, not '{other[:40]}'.")


def _list(chat: Chat) -> None:
    tools = chat.client.tools(chat.model.id)
    if not tools:
        chat.terminal.note(f"{chat.model.id} has no tools. docs/mcp.md says how it gets those of MCP servers.")
        return
    for tool in tools:
        asks = " (asks first)" if tool.needs_approval else ""
        # A name is never cut or broken: it is there to be copied.
        chat.terminal.notes.print(printable(tool.name) + asks, style="bold", soft_wrap=True)
        if summary := printable(tool.description.strip().split("\n", 1)[0], _MAX_SUMMARY):
            chat.terminal.note(f"    {summary}")
    if not chat.switches.uses_tools:
        chat.terminal.note("They are switched off: /tools on")
