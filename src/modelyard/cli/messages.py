"""Errors, warnings and notes of commands. They may hold names of files and answers of servers."""

from __future__ import annotations

import sys

import typer

from modelyard.system.printable import printable_lines


def print_error(message: str, hint: str = "") -> None:
    """Print an error on standard error, and a line below it that says where to read on."""
    _print("error:", "bold red", message, hint)


def print_warning(message: str) -> None:
    """Print a warning on standard error."""
    _print("warning:", "yellow", message)


def print_note(message: str) -> None:
    """Print on standard error what a command does or waits for, beside its result."""
    _print("", "", message)


def print_result(message: str) -> None:
    """Print a sentence on standard output."""
    _print("", "", message, is_error=False)


def _print(label: str, style: str, message: str, hint: str = "", *, is_error: bool = True) -> None:
    # Control characters of a name would drive the terminal.
    text = printable_lines(message)
    stream = sys.stderr if is_error else sys.stdout
    if not label and not stream.isatty():
        typer.echo(text, file=stream)
        return
    from rich.console import Console
    from rich.text import Text

    from modelyard.cli.line_wrap import wrapped

    console = Console(stderr=is_error, soft_wrap=True, highlight=False, emoji=False)

    def fitted(text: str, first: int = 0) -> str:
        # Where it is no terminal, a line stays one line: programs search it.
        return wrapped(text, console.width, first=first) if console.is_terminal else text

    if label:
        console.print(Text.assemble((label, style), " ", fitted(text, len(label) + 1)))
    else:
        console.print(Text(fitted(text)))
    if hint:
        console.print(fitted(hint), markup=False, style="dim")
