"""Renders the help of a command, and of all commands: plain lines that are readable at 40 columns and can be pasted."""

from __future__ import annotations

import inspect
import io
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from modelyard.cli.commands import GROUPS, Command
from modelyard.cli.line_wrap import continued, word_breaks, wrapped

MAX_WIDTH: Final = 100
# Below this width the explanation of an option is under it, not beside it.
_NARROW: Final = 72
_MAX_NAMES_WIDTH: Final = 30
_OPTIONS: Final = "Options"

_METAVARS: Final = {"int": "N", "float": "X", "Path": "FILE", "str": "TEXT"}


def command_help(ctx: Any, command: Command | None) -> str:
    """Return the help of one command.

    Args:
        ctx: context of the parsed command.
        command: its entry in the table of commands; None for a command of a group, such as ``cache list``.
    """
    console = _console()
    text, _, rest = inspect.cleandoc(ctx.command.help or "").partition("\n\n")
    _print_indented(console, _paragraph(text))
    _print_usage(console, ctx)
    for paragraph in filter(None, rest.split("\n\n")):
        console.print()
        _print_indented(console, _paragraph(paragraph))
    if commands := getattr(ctx.command, "commands", None):
        _print_section(console, "Commands", [(Text(name), _first_line(each.help)) for name, each in commands.items()])
    for heading, rows in _sections(ctx):
        _print_section(console, heading, rows)
    if command is not None and command.examples:
        _heading(console, "Examples")
        for example in command.examples:
            for line in continued(example, console.width, indent=2):
                console.print(line, markup=False, soft_wrap=True)
    return _text_of(console)


def overview(ctx: Any, commands: Sequence[Command]) -> str:
    """Return the help of the whole command line: the commands by groups."""
    console = _console()
    _print_indented(console, _paragraph(ctx.command.help or ""))
    _print_usage(console, ctx)
    for group in GROUPS:
        rows = [(Text(each.name, "bold"), Text(each.summary)) for each in commands if each.group == group]
        if rows:
            _print_section(console, group, rows, names_width=max(len(each.name) for each in commands))
    for heading, rows in _sections(ctx):
        _print_section(console, heading, rows)
    console.print()
    _print_indented(
        console, _paragraph("[bold]modelyard help COMMAND[/] shows the options of a command, with examples.")
    )
    return _text_of(console)


def exit_codes_help(meanings: Mapping[int, str]) -> str:
    """Return the exit codes of all commands with what each means."""
    console = _console()
    return "\n".join(
        f"{code:>3}  {wrapped(meaning, console.width, first=5, hanging=5)}" for code, meaning in meanings.items()
    )


def _console() -> Console:
    width = min(shutil.get_terminal_size().columns, MAX_WIDTH)
    return Console(file=io.StringIO(), width=width, force_terminal=sys.stdout.isatty(), highlight=False, emoji=False)


def _text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines)


def _paragraph(text: str) -> Text:
    return Text.from_markup(" ".join(text.replace("``", "").split()))


def _first_line(text: str | None) -> Text:
    return _paragraph(inspect.cleandoc(text or "").partition("\n\n")[0])


def _heading(console: Console, text: str) -> None:
    console.print()
    console.print(f"{text}:", style="bold", markup=False)


def _print_usage(console: Console, ctx: Any) -> None:
    console.print()
    line = Text("Usage: ", "bold")
    line.append(" ".join((ctx.command_path, *usage_pieces(ctx))), "not bold")
    _print_indented(console, line)


def usage_pieces(ctx: Any) -> Iterator[str]:
    """Yield the words of a usage line after the command's name."""
    params = ctx.command.get_params(ctx)
    for param in params:
        if param.param_type_name == "argument" and not param.hidden:
            name = param.metavar or param.name.upper()
            yield f"{name if param.required else f'[{name}]'}{'...' if param.nargs != 1 else ''}"
    for param in params:
        if param.param_type_name == "option" and param.required:
            yield " ".join(filter(None, (param.opts[0], _metavar(param))))
    yield "[OPTIONS]"
    if hasattr(ctx.command, "list_commands"):
        yield "COMMAND ..."


def _sections(ctx: Any) -> Iterator[tuple[str, list[tuple[Text, Text]]]]:
    """Yield the sections of a command's parameters: its arguments, and its options by panel."""
    sections: dict[str, list[tuple[Text, Text]]] = {}
    for param in ctx.command.get_params(ctx):
        if param.hidden:
            continue
        is_argument = param.param_type_name == "argument"
        heading = "Arguments" if is_argument else param.rich_help_panel or _OPTIONS
        sections.setdefault(heading, []).append((_names(param), explanation(param)))
    yield from sections.items()


def _names(param: Any) -> Text:
    if param.param_type_name == "argument":
        return Text(param.metavar or param.name.upper(), "bold")
    short = [name for name in param.opts if not name.startswith("--")]
    long = [name for name in (*param.opts, *param.secondary_opts) if name.startswith("--")]
    names = Text(", ".join((*short, *long)) if short else "    " + ", ".join(long), "bold")
    if metavar := _metavar(param):
        names.append(f" {metavar}", "not bold")
    return names


def option_names(param: Any) -> str:
    """Return the names of an option and what it takes: ``-m, --model MODEL``."""
    return str(_names(param).plain).strip()


def _metavar(param: Any) -> str:
    if param.is_flag:
        return ""
    if param.metavar:
        return str(param.metavar)
    word = str(param.bare_type()).removeprefix("list[").removesuffix("]")
    return _METAVARS.get(word, word.upper())


def explanation(param: Any) -> Text:
    """Return what a parameter does, with its default and whether it may be repeated."""
    text = _paragraph(param.help or "")
    default = None if callable(param.default) else param.default
    if default not in (None, False, (), []) and "default:" not in text.plain and not param.required:
        shown = param.opts[0] if default is True else default
        text.append(f" [default: {shown}]", "dim")
    if getattr(param, "multiple", False) and "repeated" not in text.plain:
        text.append(" Can be repeated.")
    return text


def _print_indented(console: Console, text: Text, indent: int = 0) -> None:
    """Print a text below ``indent`` blanks, broken between words alone: a word that no line holds stays whole."""
    for line in text.divide(word_breaks(text.plain, console.width - indent)):
        line.rstrip()
        console.print(Text(" " * indent) + line, soft_wrap=True)


def _print_section(
    console: Console, heading: str, rows: Iterable[tuple[Text, Text]], names_width: int | None = None
) -> None:
    _heading(console, heading)
    rows = list(rows)
    if console.width < _NARROW:
        for names, text in rows:
            _print_indented(console, Text(names.plain.strip(), names.style), 2)
            _print_indented(console, text, 6)
        return
    width = names_width or min(max((len(names) for names, _ in rows), default=0), _MAX_NAMES_WIDTH)
    for names, text in rows:
        if len(names) > width:
            # The names take a line of their own; a cell that is too long would be cut.
            console.print(Padding(names, (0, 0, 0, 2)))
            names = Text()
        row = Table.grid(padding=(0, 2, 0, 0))
        row.add_column(width=width, no_wrap=True)
        row.add_column()
        row.add_row(names, text)
        console.print(Padding(row, (0, 0, 0, 2)))
