"""A TOML document: its values, the positions of its problems, and the mistakes in its syntax."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from modelyard.config.bounded_read import NotReadable, read_regular
from modelyard.config.excerpt import excerpt
from modelyard.config.foreign_files import recognise
from modelyard.config.positions import Entry, Span, positions
from modelyard.config.syntax import Parsed, parse
from modelyard.errors.configuration import ConfigProblem, Location

_SUFFIX: Final = ".toml"
# Every value in these tables of [[mcp.servers]] may be a secret, whatever its key.
_SECRETS_OF: Final = (("env",), ("headers",))
_WORD: Final = re.compile(r"[\w./:@-]+")
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")


class UnreadableDocument(Exception):
    """The file holds no TOML at all; ``problem`` says why."""

    def __init__(self, problem: ConfigProblem) -> None:
        super().__init__(problem)
        self.problem = problem


@dataclass(frozen=True)
class Document:
    """A TOML document as far as it can be read.

    Attributes:
        values: its tables and keys, with ``false`` in place of values with a mistake.
        mistakes: the mistakes in its syntax, with their positions.
        words: the words in the lines with mistakes, which may be names that other keys refer to.
    """

    values: Mapping[str, Any]
    mistakes: tuple[ConfigProblem, ...]
    words: frozenset[str]
    _lines: tuple[str, ...]
    _text: str
    _entries: Mapping[Location, Entry]
    _repaired: frozenset[int]

    def follows_from_mistake(self, problem: ConfigProblem) -> bool:
        """Whether a problem is only there because a line with a mistake was replaced."""
        if problem.is_key or not self._repaired:
            return False
        spans = (self._span(location, is_key=False) for location in (problem.location, *problem.related) if location)
        return any(span is not None and self._line_of(span[0]) in self._repaired for span in spans)

    def place(self, problem: ConfigProblem) -> ConfigProblem:
        """Return the problem with its position and the line of the file; unchanged where it has no position."""
        written = next((at for at in (problem.location, *problem.related) if at in self._entries), problem.location)
        span = self._span(written, is_key=problem.is_key) if written else None
        if span is None:
            return problem
        line = self._line_of(span[0])
        column, length = span[0] - self._starts[line - 1] + 1, len(self._text[slice(*span)].split("\n", 1)[0].rstrip())
        lines = {line, *(self._line_of(other[0]) for other in map(self._exact_span, problem.related) if other)} - {line}
        notes = [f"note: compare line {number}" for number in sorted(lines)]
        if problem.hint:
            notes.append(f"help: {problem.hint}")
        shown = excerpt(self._lines, line, column, max(1, length), notes, self._secret_start(line))
        return replace(problem, line=line, column=column, excerpt=shown)

    def _secret_start(self, line: int) -> int | None:
        """Return the offset in a line of the first value in a table of secrets; None: there is none."""
        start, end = self._starts[line - 1], self._starts[line] if line < len(self._starts) else len(self._text)
        offsets = [max(0, first - start) for first, last in self._secrets if first < end and last > start]
        return min(offsets, default=None)

    @cached_property
    def _secrets(self) -> Sequence[Span]:
        """Where the values in tables of secrets stand."""
        return [entry.value for location, entry in self._entries.items() if location[-2:-1] in _SECRETS_OF]

    @cached_property
    def _starts(self) -> Sequence[int]:
        """Offsets of the first characters of all lines."""
        return [0, *(match.end() for match in re.finditer("\n", self._text))]

    def _exact_span(self, location: Location) -> Span | None:
        entry = self._entries.get(location)
        return None if entry is None else entry.value

    def _span(self, location: Location, *, is_key: bool) -> Span | None:
        """Return where the value stands, or the key; else the table or list that it would be in."""
        entry = self._entries.get(location)
        if entry is not None:
            return entry.key if is_key else entry.value
        for end in range(len(location) - 1, 0, -1):
            if (around := self._entries.get(location[:end])) is not None:
                return around.value
        return None

    def _line_of(self, offset: int) -> int:
        return bisect_right(self._starts, offset)


def read_document(path: Path) -> Document:
    """Read a TOML file.

    Raises:
        UnreadableDocument: there is no such file, it cannot be read, or it is no TOML.
    """
    text = _read_text(path)
    try:
        parsed = parse(text)
        entries = positions(parsed.text)
    except RecursionError:
        raise UnreadableDocument(ConfigProblem("The file is not valid TOML: it nests too deep.")) from None
    except ValueError as error:  # a number with more digits than Python reads
        raise UnreadableDocument(ConfigProblem(f"The file is not valid TOML: {error}.")) from None
    if parsed.mistakes and (foreign := recognise(text)) is not None:
        raise UnreadableDocument(ConfigProblem(foreign.message, foreign.hint))
    return _document(text, parsed, entries)


def _document(text: str, parsed: Parsed, entries: Mapping[Location, Entry]) -> Document:
    lines = tuple(line.removesuffix("\r") for line in text.split("\n"))
    mistakes = tuple(
        ConfigProblem(
            f"not valid TOML: {mistake.message}.",
            mistake.hint,
            line=mistake.line,
            column=mistake.column,
            excerpt=excerpt(
                lines,
                mistake.line,
                mistake.column,
                mistake.length,
                [f"help: {mistake.hint}"] if mistake.hint else [],
            ),
        )
        for mistake in parsed.mistakes
    )
    words = frozenset(word for number in parsed.repaired for word in _WORD.findall(lines[number - 1]))
    return Document(parsed.values, mistakes, words, lines, parsed.text, entries, parsed.repaired)


def _read_text(path: Path) -> str:
    try:
        content = read_regular(path)
    except FileNotFoundError:
        raise UnreadableDocument(ConfigProblem("There is no such file.")) from None
    except NotReadable as error:
        raise UnreadableDocument(ConfigProblem(str(error), "Name a configuration, which ends in .toml.")) from None
    except OSError as error:
        raise UnreadableDocument(ConfigProblem(f"The file cannot be read: {error.strerror}.")) from None
    is_toml = path.suffix.lower() == _SUFFIX
    if not is_toml:
        foreign = recognise(content.decode("utf-8", "replace"))
        raise UnreadableDocument(
            ConfigProblem(
                "A configuration file must end in .toml.",
                "" if foreign is None else f"{foreign.message} {foreign.hint}",
            )
        )
    try:
        # Editors on Windows begin the file with a byte-order mark, which TOML does not know.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if content.startswith(_UTF16):
            problem = ConfigProblem("The file is UTF-16 text, and TOML is UTF-8.", "Save it as UTF-8.")
        else:
            line = error.object.count(b"\n", 0, error.start) + 1
            problem = ConfigProblem(f"The file is not UTF-8 text: bad byte in line {line}.", "Save it as UTF-8.")
        raise UnreadableDocument(problem) from None
