"""The manual pages of the command line, from the code: one of ``modelyard``, and one of each command.

They go into ``share/man/man1`` of an installation, where ``man modelyard`` finds them. Source of the markup: man(7).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from modelyard.cli import app
from modelyard.cli.command_line import load
from modelyard.cli.commands import COMMANDS, GROUPS, Command
from modelyard.cli.exit_codes import MEANINGS
from modelyard.cli.help_text import explanation, option_names, usage_pieces

NAME = "modelyard"
SECTION = 1

# What groff would print as another character, or read as a request.
_ESCAPES: Mapping[int, str] = str.maketrans(
    {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti", '"': r"\(dq"}
)


def render_man_pages() -> dict[str, str]:
    """Return the text of each page by the name of its file."""
    pages = {f"{NAME}.{SECTION}": "\n".join(_overview()) + "\n"}
    for command in COMMANDS:
        pages[f"{NAME}-{command.name}.{SECTION}"] = "\n".join(_page(command)) + "\n"
    return pages


def roff(text: str) -> str:
    """Return a text as groff prints it unchanged, and as it can be copied from the terminal."""
    escaped = text.translate(_ESCAPES)
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def _overview() -> Iterator[str]:
    yield from _head(NAME, str(app.info.help).rstrip("."))
    yield f"\\fB{NAME}\\fR COMMAND ..."
    yield ".SH DESCRIPTION"
    yield roff(
        "Modelyard serves many language models in one process, behind one address that speaks the dialects of OpenAI, "
        "Anthropic, Ollama and llama.cpp. Each command has a page of its own:"
    )
    yield f"\\fBman {NAME}\\-serve\\fR."
    for group in GROUPS:
        yield f".SH {roff(group.upper())}"
        for command in COMMANDS:
            if command.group == group:
                yield from _item(f"\\fB{NAME}\\-{roff(command.name)}\\fR({SECTION})", command.summary)
    yield from _exit_status()


def _page(command: Command) -> Iterator[str]:
    loaded = load(command)
    yield from _head(f"{NAME}-{command.name}", command.summary.rstrip("."))
    inner = getattr(loaded, "commands", {})
    paths = [f"{command.name} {name}" for name in inner] or [command.name]
    for path, each in zip(paths, inner.values() if inner else [loaded], strict=True):
        yield from _usage(each, path)
    yield ".SH DESCRIPTION"
    yield from _paragraphs(loaded)
    if command.aliases:
        yield ".PP"
        yield roff(f"Other names: {', '.join(command.aliases)}.")
    yield from _options(loaded, ".SH OPTIONS")
    for name, each in inner.items():
        yield f".SH {roff(f'{command.name} {name}'.upper())}"
        yield from _paragraphs(each)
        yield from _options(each, ".PP")
    if command.examples:
        yield ".SH EXAMPLES"
        yield ".nf"
        yield from map(roff, command.examples)
        yield ".fi"
    yield from _exit_status()
    yield ".SH SEE ALSO"
    yield f"\\fB{NAME}\\fR({SECTION})"


def _head(name: str, summary: str) -> Iterator[str]:
    # No date and no version: pages change when their commands do.
    yield f'.TH {roff(name.upper())} {SECTION} "" "Modelyard" "User Commands"'
    yield ".SH NAME"
    yield f"{roff(name)} \\- {roff(summary)}"
    yield ".SH SYNOPSIS"


def _usage(command: Any, path: str) -> Iterator[str]:
    words = " ".join(usage_pieces(command.context_class(command, info_name=path)))
    yield f"\\fB{NAME} {roff(path)}\\fR {roff(words)}"
    yield ".br"


def _paragraphs(command: Any) -> Iterator[str]:
    text = inspect.cleandoc(command.help or "").replace("[bold]", "").replace("[/]", "").replace("``", "")
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield ".PP"
        yield roff(" ".join(paragraph.split()))


def _options(command: Any, heading: str) -> Iterator[str]:
    shown = [param for param in command.params if not param.hidden and "completion" not in param.name]
    if shown:
        yield heading
    for param in shown:
        yield from _item(f"\\fB{roff(option_names(param))}\\fR", explanation(param).plain)


def _item(tag: str, text: str) -> Iterator[str]:
    yield ".TP"
    yield tag
    yield roff(text)


def _exit_status() -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for code, meaning in MEANINGS.items():
        yield from _item(f"\\fB{code}\\fR", meaning)
