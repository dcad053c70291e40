"""Errors and warnings of commands on standard error. They may hold names of files and answers of servers."""

from __future__ import annotations

from modelyard.system.printable import printable_lines


def print_error(message: str, hint: str = "") -> None:
    """Print an error, and a line below it that says where to read on."""
    _print("error", "bold red", message, hint)


def print_warning(message: str) -> None:
    """Print a warning."""
    _print("warning", "yellow", message)


def _print(label: str, style: str, message: str, hint: str = "") -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
    # Control characters of a name would drive the terminal.
    console.print(Text.assemble((f"{label}:", style), " ", printable_lines(message)))
    if hint:
        console.print(hint, markup=False, style="dim")
