"""The reference of the command line: groups, commands, their options and the exit codes, from the code."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from http_reference import table

from modelyard.cli.command_line import load
from modelyard.cli.commands import COMMANDS, GROUPS, Command
from modelyard.cli.exit_codes import MEANINGS
from modelyard.cli.help_text import explanation, option_names, usage_pieces


def render_command_line() -> str:
    """Markdown: a table of all commands, each command with its options and examples, and the exit codes."""
    return "\n\n".join([*_overview(), *(part for each in COMMANDS for part in _command(each)), *_exit_codes()]) + "\n"


def _overview() -> Iterator[str]:
    yield "## Commands"
    for group in GROUPS:
        commands = [command for command in COMMANDS if command.group == group]
        if commands:
            rows = [(f"[`{each.name}`](#{each.name})", each.summary) for each in commands]
            yield table((group, ""), rows).rstrip()


def _command(command: Command) -> Iterator[str]:
    loaded = load(command)
    yield f"## {command.name}"
    yield from _description(loaded, command.name)
    for name, inner in getattr(loaded, "commands", {}).items():
        yield f"### {command.name} {name}"
        yield from _description(inner, f"{command.name} {name}")
    yield "```sh\n" + "\n".join(command.examples) + "\n```"


def _description(loaded: Any, path: str) -> Iterator[str]:
    yield " ".join(inspect.cleandoc(loaded.help or "").replace("[bold]", "").replace("[/]", "").split())
    context = loaded.context_class(loaded, info_name=path)
    yield f"`modelyard {path} {' '.join(usage_pieces(context))}`"
    rows = [
        (f"`{option_names(param)}`", explanation(param).plain)
        for param in loaded.params
        if not param.hidden and "completion" not in param.name
    ]
    if rows:
        yield table(("Option", "Meaning"), rows).rstrip()


def _exit_codes() -> Iterator[str]:
    yield "## Exit codes"
    yield table(("Code", "Meaning"), [(str(code), meaning) for code, meaning in MEANINGS.items()]).rstrip()
