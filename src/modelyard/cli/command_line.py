"""Commands and groups of commands: imports them when they are needed, and turns their errors into exit codes."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from modelyard.cli import foreign
from modelyard.cli.commands import BY_NAME, COMMANDS, Command
from modelyard.cli.exit_codes import FAILURE, INTERRUPTED, OK, USAGE, exit_code
from modelyard.cli.messages import print_error
from modelyard.cli.usage import UsageError, bad_value, nearest
from modelyard.errors import ModelyardError

# Errors of writing to a full disk, which the program can do nothing about.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_OPTION: Final = re.compile(r"(?<![-\w])--[a-z][-a-z]+")


class SingleCommand(TyperCommand):
    """A command that refuses options which are given twice, and explains those of other tools."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments of the command.

        Raises:
            UsageError, TyperException: they are wrong.
        """
        if ctx.resilient_parsing:  # completes a word in a shell
            return super().parse_args(ctx, args)
        params = self.get_params(ctx)
        _refuse_foreign(ctx, params, args)
        given: dict[str, Any] = {}
        try:
            given, _, order = self.make_parser(ctx).parse_args(args=list(args))
            _refuse_repetition(ctx, order)
            _refuse_undecodable(ctx, params, given)
            return super().parse_args(ctx, args)
        except UsageError:
            raise
        except typer.TyperException as error:
            raise _explained(ctx, params, given, error) from error

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help of the command."""
        from modelyard.cli.help_text import command_help

        is_top = ctx.parent is not None and ctx.parent.parent is None
        formatter.write(command_help(ctx, BY_NAME.get(ctx.info_name) if is_top else None))


class CommandGroup(TyperGroup):
    """Commands below a common name, such as ``cache``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments up to the name of the command.

        Raises:
            UsageError, TyperException: they are wrong.
        """
        try:
            return super().parse_args(ctx, args)
        except typer.TyperException as error:
            if ctx.resilient_parsing:
                raise
            raise _explained(ctx, self.get_params(ctx), {}, error) from error

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the first argument names.

        Raises:
            UsageError: there is none; the message names the nearest, or what takes the place of another tool's command.
        """
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            raise UsageError(_unknown_command(name, self.list_commands(ctx), is_top=ctx.parent is None), ctx)
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help of the commands."""
        from modelyard.cli.help_text import command_help

        formatter.write(command_help(ctx, BY_NAME.get(ctx.info_name)))


class CommandLine(CommandGroup):
    """The whole command line: the commands of ``COMMANDS``."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """Import the command of that name; None if there is none."""
        command = BY_NAME.get(cmd_name)
        return None if command is None else load(command)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Return the names of all commands, as the help shows them."""
        return [command.name for command in COMMANDS]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help of all commands, without importing them."""
        from modelyard.cli.help_text import overview

        formatter.write(overview(ctx, COMMANDS))

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:  # noqa: ARG002
        """Return the names of commands that begin with ``incomplete``, without importing them."""
        # typer takes it from click, or brings its own.
        item = import_module("typer.core").CompletionItem
        return [item(each.name, help=each.summary) for each in COMMANDS if each.name.startswith(incomplete)]

    def main(self, args: Sequence[str] | None = None, *_: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run the command line, and end the process with one of the exit codes of ``exit_codes``."""
        extra["prog_name"] = "modelyard"
        if not standalone_mode:
            return super().main(args, standalone_mode=False, **extra)
        try:
            sys.exit(super().main(args, standalone_mode=False, **extra) or OK)
        except typer.TyperException as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                # Its message is the help of a group whose command is missing.
                typer.echo(error.format_message(), err=True)
                sys.exit(USAGE)
            _fail(error.format_message(), error.exit_code, getattr(error, "ctx", None))
        except typer.Abort:
            _fail("Nothing was done.", FAILURE)
        except ModelyardError as error:
            _fail("\n".join([str(error), *getattr(error, "__notes__", ())]), exit_code(error))
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            _fail(f"The output cannot be written: {error.strerror}.", FAILURE)


def load(command: Command) -> Any:
    """Import a command."""
    module, _, name = command.home.partition(":")
    home = getattr(import_module(module), name)
    if not isinstance(home, typer.Typer):
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command(command.name, cls=SingleCommand)(home)
        home = app
    loaded = typer.main.get_command(home)
    loaded.name = command.name
    return loaded


def _unknown_command(name: str, known: Sequence[str], *, is_top: bool) -> str:
    problem = f"'{name}' is not a command."
    if not is_top:
        return problem + (nearest(name, known) or f" There are: {', '.join(known)}.")
    if name.lower() in foreign.COMMANDS:
        return f"{problem} {foreign.COMMANDS[name.lower()]}"
    if Path(name).suffix.lower() in (".gguf", ".toml", ".uqff") or "/" in name:
        return f"{problem} To serve it, write: modelyard serve {name}"
    return problem + nearest(name.lower(), known)


def _refuse_foreign(ctx: Any, params: Sequence[Any], args: Sequence[str]) -> None:
    """Refuse options of other tools by name, before a parser that takes ``-ngl`` for ``-n gl``.

    Raises:
        UsageError: there is one.
    """
    own = {name for param in params for name in (*param.opts, *param.secondary_opts)}
    answers = {**foreign.OPTIONS, **foreign.OPTIONS_OF.get(ctx.info_name, {})}
    for option, value in _options(params, args):
        if option in answers and option not in own:
            # What an answer names may be an option of the command that loads models, and not of this one.
            elsewhere = [name for name in _OPTION.findall(answers[option]) if name not in own]
            of_serve = f" {elsewhere[0]} is an option of modelyard serve." if elsewhere else ""
            raise UsageError(f"{option} is not an option of {ctx.info_name}. {answers[option]}.{of_serve}", ctx)
        if option == "-c" and value.isdecimal() and "--chat-template" in own and not Path(value).exists():
            raise UsageError(f"-c is --chat-template here. The context length is --ctx: --ctx {value}.", ctx)


def _options(params: Sequence[Any], args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the arguments that are options, with the next argument, and without the values of options."""
    with_value = {name for param in params if not getattr(param, "is_flag", True) for name in param.opts}
    is_value = False
    for argument, following in zip_longest(args, args[1:], fillvalue=""):
        if argument == "--":
            return
        name = argument.partition("=")[0]
        if not is_value and argument.startswith("-") and len(argument) > 1:
            yield name, following
            is_value = argument in with_value
        else:
            is_value = False


def _refuse_undecodable(ctx: Any, params: Sequence[Any], given: Mapping[str, Any]) -> None:
    """Refuse text that is not UTF-8, which no configuration and no request could hold. Paths may be any bytes.

    Raises:
        UsageError: there is such text.
    """
    for param in params:
        value = given.get(param.name)
        for text in value if isinstance(value, list | tuple) else (value,):
            if isinstance(text, str) and "Path" not in param.bare_type() and not text.isascii():
                try:
                    text.encode()
                except UnicodeEncodeError:
                    raise UsageError(f"'{text}' is not UTF-8, as text and names of models have to be.", ctx) from None


def _refuse_repetition(ctx: Any, order: Sequence[Any]) -> None:
    """Refuse an option that takes one value and is given twice.

    Raises:
        UsageError: there is one.
    """
    seen: set[int] = set()
    for param in order:
        if param.param_type_name == "argument":
            continue
        takes_one = not param.multiple and (not param.is_flag or param.secondary_opts)
        if takes_one and id(param) in seen:
            name = next((name for name in param.opts if name.startswith("--")), param.opts[0])
            raise UsageError(f"{name} is given twice, and takes one value.", ctx)
        seen.add(id(param))


def _explained(
    ctx: Any, params: Sequence[Any], given: Mapping[str, Any], error: typer.TyperException
) -> typer.TyperException:
    """Return an error of the parser in words of ours: with the nearest option, and with the value that was given."""
    option = getattr(error, "option_name", None)
    if option is not None:
        known = [name for param in params for name in (*param.opts, *param.secondary_opts)]
        if option in known:
            return UsageError(_value_problem(option, params), ctx)
        if ctx.parent is None:
            problem = f"{option} is not an option of modelyard itself; options of a command follow its name."
            return UsageError(f"{problem}{_nearest_option(option, known)}", ctx)
        return UsageError(f"{option} is not an option of {ctx.info_name}.{_nearest_option(option, known)}", ctx)
    param = getattr(error, "param", None)
    if param is not None:
        return UsageError(bad_value(param, given.get(param.name), error), ctx)
    if "unexpected extra argument" in str(error):
        names = [param.metavar or param.name.upper() for param in params if param.param_type_name == "argument"]
        taken = f"takes {' and '.join(names)}" if names else "takes none"
        extra = str(error).rpartition("(")[2].rstrip(")")
        return UsageError(f"'{extra}' is an argument too many: {ctx.info_name} {taken}.", ctx)
    return error


def _value_problem(option: str, params: Sequence[Any]) -> str:
    """Return what is wrong with the value of an option: it has none, or is a switch and has one."""
    param = next(param for param in params if option in (*param.opts, *param.secondary_opts))
    if not param.is_flag:
        return f"{option} needs a value."
    written = " or ".join(name for name in (*param.opts, *param.secondary_opts) if name.startswith("--"))
    return f"{option} takes no value. Write {written}{foreign.SWITCHES.get(option, '')}."


def _nearest_option(option: str, known: Collection[str]) -> str:
    swapped = option.swapcase()
    if len(option) == 2 and swapped in known:
        return f" Did you mean '{swapped}'?"
    return nearest(option, [name for name in known if name.startswith("--") or not option.startswith("--")])


def _fail(message: str, code: int, ctx: Any = None) -> NoReturn:
    print_error(message, "" if ctx is None else f"Help: {ctx.command_path} --help")
    sys.exit(code)
