"""Wraps messages at words for a terminal, which would break its lines in the middle of words.

What is there to be copied stays whole: ids, paths and commands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from rich.cells import cell_len

# A text in quotes, with the signs around it, or a run without blanks.
_QUOTED: Final = r"\(?'[^'\n]*'[.,:;)]*(?!\S)"
_WORD: Final = re.compile(rf"{_QUOTED}|\S+")
_RUN: Final = re.compile(r"\S+")
# A command at the end of a line, as errors name it: "Write: modelyard serve ./model.gguf".
_COMMAND: Final = re.compile(r"(?<!\S)modelyard(?: \S+)+$")
# Lines of files with their carets, commands on lines of their own, and columns.
_VERBATIM: Final = re.compile(r"\s|\d+ \| |.*\S {2,}\S")
# A note below the line of a file.
_NOTE: Final = re.compile(r"\s+= ")


def wrapped(message: str, width: int, *, first: int = 0, hanging: int = 0) -> str:
    """Return a message with its lines broken at words, so that they fit ``width`` columns where words allow it.

    Lines that begin with blanks, are of a file, or have columns of their own, stay as they are.

    Args:
        message: the message, of one or several lines.
        width: columns of the terminal.
        first: columns that are taken before the first line.
        hanging: blanks before each line that a break begins.
    """
    lines: list[str] = []
    for line in message.split("\n"):
        taken = 0 if lines else first
        if note := _NOTE.match(line):
            first_line, *others = _broken(line[note.end() :], width, note.end(), note.end())
            lines += [note[0] + first_line, *others]
        else:
            lines += [line] if _VERBATIM.match(line) else _broken(line, width, taken, hanging)
    return "\n".join(lines)


def continued(command: str, width: int, *, indent: int) -> list[str]:
    """Return a command of a shell as lines that fit ``width``, each but the last with the shell's mark of continuation.

    Args:
        command: the command.
        width: columns of the terminal.
        indent: blanks before the command; further lines have four more.
    """
    lines, line = [], " " * indent
    for word in _WORD.findall(command):
        # Two columns are for the mark.
        if line.strip() and cell_len(line) + 1 + cell_len(word) > width - 2:
            lines.append(f"{line} \\")
            line = " " * (indent + 4)
        line += f" {word}" if line.strip() else word
    return [*lines, line]


def word_breaks(text: str, width: int) -> list[int]:
    """Return the offsets of the words of a text of one line that begin a new line, so that lines fit ``width``."""
    breaks, start = [], 0
    for word in _RUN.finditer(text):
        if word.start() > start and cell_len(text[start : word.end()]) > width:
            start = word.start()
            breaks.append(start)
    return breaks


def _broken(line: str, width: int, taken: int, hanging: int) -> list[str]:
    lines, current, column = [], "", taken
    for word in _words(line, width - hanging):
        size = cell_len(word)
        if current and column + 1 + size > width:
            lines.append(current)
            current, column = " " * hanging + word, hanging + size
        elif current:
            current, column = f"{current} {word}", column + 1 + size
        else:
            current, column = word, column + size
    return [*lines, current]


def _words(line: str, width: int) -> Iterator[str]:
    """Yield the parts of a line that are not broken."""
    command = _COMMAND.search(line)
    if command is not None and cell_len(command[0]) <= width:
        yield from _words(line[: command.start()], width)
        yield command[0]
        return
    for word in _WORD.findall(line):
        # A text in quotes that no line holds is a path, or a sentence.
        if cell_len(word) <= width or "/" in word:
            yield word
        else:
            yield from word.split()
