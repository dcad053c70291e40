"""Parses TOML on beyond its mistakes, so that one report holds all of a file's.

``tomllib`` ends with the first mistake. Its statement is replaced by one that is valid, and the document parsed again.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from modelyard.config.syntax_hints import hint_of

MAX_MISTAKES: Final = 50

# Each mistake takes a few passes over the document.
_MAX_PARSED_CHARS: Final = 2**20

_POSITION: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_STATEMENT: Final = re.compile(r"""^\s*(?:[\w"'. -]+?=|\[)""")
_PAIR: Final = re.compile(r"""^(\s*[A-Za-z0-9_-]+(?:\s*\.\s*[A-Za-z0-9_-]+)*\s*)([=:])""")
_HEADER: Final = re.compile(r"^\s*\[+\s*([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)\s*\]*\s*(?:#.*)?$")
_REPAIRED_TABLE: Final = "[__mistake_{}__]"
_LISTS: Final = ("models", "server.keys")


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake in the syntax of a document; lines and columns are counted from 1.

    Attributes:
        length: number of characters that are wrong.
        message: what is wrong, without a full stop.
        hint: what to write, as a sentence; "" where that is not known.
    """

    line: int
    column: int
    length: int
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """A document as far as it can be read.

    Attributes:
        values: of the repaired text.
        text: the repaired text, which has the same lines.
        mistakes: in the order of the file.
        repaired: numbers of the lines whose values are not those of the file.
    """

    values: dict[str, Any]
    text: str
    mistakes: tuple[Mistake, ...]
    repaired: frozenset[int]


def parse(text: str) -> Parsed:
    """Parse a TOML document, and repair it where it is not valid.

    Raises:
        ValueError: it holds a number that Python does not read.
        RecursionError: it nests too deep.
    """
    original = text.split("\n")
    lines = list(original)
    mistakes: list[Mistake] = []
    repaired: set[int] = set()
    allowed = max(1, min(MAX_MISTAKES, _MAX_PARSED_CHARS // max(1, len(text))))
    while True:
        try:
            values = tomllib.loads("\n".join(lines))
        except tomllib.TOMLDecodeError as error:
            message, line, column = _position(str(error), lines)
            first = _first_line(lines, line)
            if len(mistakes) == allowed or not _repair(lines, first, line, repaired, is_repeated=_is_repeated(message)):
                values, lines = {}, [""] * len(lines)
                repaired |= set(range(1, len(lines) + 1))
                mistakes.append(Mistake(line, column, 1, message, ""))
                break
            mistakes.append(_mistake(original, first, line, column, message))
        else:
            break
    values = {key: value for key, value in values.items() if not key.startswith("__mistake_")}
    return Parsed(values, "\n".join(lines), tuple(sorted(mistakes, key=lambda one: one.line)), frozenset(repaired))


def _position(message: str, lines: Sequence[str]) -> tuple[str, int, int]:
    """Split a message of ``tomllib`` into its words, line and column."""
    match = _POSITION.search(message)
    if match is None:
        return message, 1, 1
    if match[1] is None:
        return message[: match.start()], len(lines), len(lines[-1]) + 1
    return message[: match.start()], int(match[1]), int(match[2])


def _is_repeated(message: str) -> bool:
    return message.startswith(("Cannot overwrite", "Cannot declare", "Cannot mutate"))


def _mistake(lines: Sequence[str], first: int, line: int, column: int, message: str) -> Mistake:
    """Return the mistake that ``tomllib`` noticed in ``line``, of a statement that begins in line ``first``."""
    if first < line:
        line, column, message = first, _value_column(lines[first - 1]), "this value has no end"
    text = lines[line - 1]
    content = text.rstrip()
    if _is_repeated(message):
        column = len(text) - len(text.lstrip()) + 1
        is_table = text.lstrip().startswith("[")
        message = "the table is opened a second time" if is_table else "the key is set a second time"
        length = len(content if is_table else content.partition("=")[0].rstrip()) - column + 1
    elif message.startswith(("Invalid value", "Expected newline")) and "=" in text:
        column, message = _value_column(text), "this is no value"
        length = len(content.partition(" #")[0].rstrip()) - column + 1
    else:
        if "\\" in message:  # noticed a few characters behind it
            column = text.rfind("\\", 0, column) + 1 or column
        message, length = f"{message[:1].lower()}{message[1:]}", 1
    return Mistake(line, column, max(1, length), message, hint_of(message, lines, line))


def _is_valid(lines: Sequence[str]) -> bool:
    try:
        tomllib.loads("\n".join(lines))
    except tomllib.TOMLDecodeError:
        return False
    return True


def _first_line(lines: Sequence[str], line: int) -> int:
    """Return the line in which the statement begins that fails in ``line``: a list or text may span several."""
    if _is_valid(lines[: line - 1]):
        return line
    starts = [number for number in range(1, line) if _STATEMENT.match(lines[number - 1])]
    low, high = 0, len(starts) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _is_valid(lines[: starts[middle] - 1]) else (low, middle - 1)
    return starts[low] if starts else line


def _repair(lines: list[str], first: int, last: int, repaired: set[int], *, is_repeated: bool) -> bool:
    """Replace the statement between two lines by a valid one; False where everything was tried."""
    start = lines[first - 1]
    fixed = "" if first in repaired else _repaired(start, first, is_repeated=is_repeated)
    # The next statement may begin in the line where the failure was noticed.
    end = last if first < last and not _STATEMENT.match(lines[last - 1]) else max(first, last - 1)
    if fixed == start and all(not lines[number - 1].strip() for number in range(first, end + 1)):
        if not lines[last - 1].strip():
            return False
        end = last
    for number in range(first, end + 1):
        lines[number - 1] = ""
        repaired.add(number)
    lines[first - 1] = fixed
    return True


def _repaired(line: str, number: int, *, is_repeated: bool) -> str:
    """Return a valid statement with the key or table of a faulty one; "" where it has none."""
    if line.lstrip().startswith("["):
        header = _HEADER.match(line)
        if header is None or is_repeated:
            return _REPAIRED_TABLE.format(number)
        return f"[[{header[1]}]]" if header[1] in _LISTS else f"[{header[1]}]"
    pair = _PAIR.match(line)
    return "" if pair is None or is_repeated else f"{pair[1]}= false"


def _value_column(line: str) -> int:
    """Return the column where the value of a statement begins."""
    _, sign, value = line.partition("=")
    return len(line) - len(value.lstrip()) + 1 if sign else len(line) - len(line.lstrip()) + 1
