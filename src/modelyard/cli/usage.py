"""The error of a command line that is wrong, and how the parser's own errors become such errors."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Final

import typer

from modelyard.cli.exit_codes import USAGE

# What a type is called in an error, by its name in Python.
_TYPES: Final = {"int": "a whole number", "float": "a number", "Path": "a path"}


class UsageError(typer.TyperException):
    """The command line is wrong. The message names options as they were typed, and says what to do.

    Attributes:
        ctx: context of the command; None until it is known.
    """

    exit_code = USAGE

    def __init__(self, message: str, ctx: Any = None) -> None:
        super().__init__(message)
        self.ctx = ctx


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean '--ctx'?`` for the known word that is most like ``word``; "" if none is like it."""
    near = get_close_matches(word, list(known), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def bad_value(param: Any, value: object, error: typer.TyperException) -> str:
    """Return the message about a value that an option or argument does not take.

    Args:
        param: the option or argument.
        value: what was given; None where that is not known.
        error: as the parser raised it.
    """
    name = next((name for name in param.opts if name.startswith("--")), None) or param.metavar or param.name.upper()
    if type(error).__name__ == "MissingParameter":
        return f"{name} is missing."
    kind = next((words for word, words in _TYPES.items() if word in param.bare_type()), None)
    if kind is not None and not isinstance(value, list | tuple | type(None)):
        return f"{name} must be {kind}, not '{value}'."
    message = error.message.rstrip(".")
    return f"{name}: {message[:1].upper()}{message[1:]}."
