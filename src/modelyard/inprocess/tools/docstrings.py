"""The description of a function and of its parameters, read from its docstring.

The styles of Google, NumPy and reStructuredText are read. What is none of them is the description as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

_PARAMETERS: Final = frozenset({"args", "arguments", "parameters", "params", "other parameters", "keyword args"})
_SECTIONS: Final = _PARAMETERS | frozenset(
    {
        *("attributes", "example", "examples", "note", "notes", "raises", "references", "return", "returns"),
        *("see also", "todo", "warning", "warnings", "warns", "yield", "yields"),
    }
)
# Google: "name: text", "name (type): text", "*names: text".
_GOOGLE_ENTRY: Final = re.compile(r"\*{0,2}(\w+)\s*(?:\(.*?\))?\s*:\s*(.*)")
# NumPy: "name", "name : type", "first, second : type".
_NUMPY_ENTRY: Final = re.compile(r"(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?")
# reStructuredText: ":param name: text", ":param type name: text".
_REST_FIELD: Final = re.compile(r":(\w+)(?:\s+([^:]*))?:\s*(.*)")
_REST_PARAMETERS: Final = frozenset({"param", "parameter", "arg", "argument", "key", "keyword"})


@dataclass(frozen=True, slots=True)
class Documentation:
    """What a docstring says.

    Attributes:
        description: the text before the first section; paragraphs are kept.
        parameters: description of each parameter that has one, by name, each on one line.
    """

    description: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


def read_docstring(docstring: str | None) -> Documentation:
    """Return what ``docstring`` says; its common indentation must be removed already, as ``inspect.getdoc`` does."""
    lines = (docstring or "").strip().splitlines()
    described: list[str] = []
    parameters: dict[str, str] = {}
    index = 0
    has_sections = False
    while index < len(lines):
        section, underlined = _section(lines, index)
        if section is not None:
            has_sections = True
            body = _body(lines, index + (2 if underlined else 1), underlined=underlined)
            if section in _PARAMETERS:
                read = _numpy_entries if underlined else _google_entries
                parameters |= dict(read(body))
            index += (2 if underlined else 1) + len(body)
        elif named := _REST_FIELD.fullmatch(lines[index].strip()):
            has_sections = True
            body = _body(lines, index + 1, underlined=False)
            kind, name, text = named.groups()
            if kind in _REST_PARAMETERS and name:
                parameters[name.split()[-1].lstrip("*")] = _joined([text, *body])
            index += 1 + len(body)
        else:
            if not has_sections:
                described.append(lines[index])
            index += 1
    return Documentation("\n".join(described).strip(), {name: text for name, text in parameters.items() if text})


def _section(lines: Sequence[str], index: int) -> tuple[str | None, bool]:
    """Return the name of the section that begins at a line, or None; and whether it is underlined, as NumPy has it."""
    line = lines[index]
    if line[:1].isspace():
        return None, False
    name = line.strip().lower()
    follows = lines[index + 1].strip() if index + 1 < len(lines) else ""
    if name in _SECTIONS and len(follows) >= 3 and set(follows) == {"-"}:
        return name, True
    if name.endswith(":") and name[:-1].strip() in _SECTIONS:
        return name[:-1].strip(), False
    return None, False


def _body(lines: Sequence[str], begin: int, *, underlined: bool) -> Sequence[str]:
    """Return the lines of a section: what is indented, or, where its title is underlined, all before the next title."""
    end = begin
    while end < len(lines):
        line = lines[end]
        is_within = not line.strip() or line[:1].isspace()
        if underlined:
            is_within = _section(lines, end)[0] is None
        if not is_within:
            break
        end += 1
    return lines[begin:end]


def _google_entries(body: Sequence[str]) -> Iterator[tuple[str, str]]:
    for entry in _entries(body):
        if named := _GOOGLE_ENTRY.fullmatch(entry[0].strip()):
            yield named[1], _joined([named[2], *entry[1:]])


def _numpy_entries(body: Sequence[str]) -> Iterator[tuple[str, str]]:
    for entry in _entries(body):
        if named := _NUMPY_ENTRY.fullmatch(entry[0].strip()):
            for name in named[1].split(","):
                yield name.strip().lstrip("*"), _joined(entry[1:])


def _entries(body: Sequence[str]) -> Iterator[list[str]]:
    """Yield the entries of a section: a line of the least indentation, and those below it that are indented more."""
    written = [line for line in body if line.strip()]
    if not written:
        return
    least = min(len(line) - len(line.lstrip()) for line in written)
    entry: list[str] = []
    for line in written:
        if entry and len(line) - len(line.lstrip()) == least:
            yield entry
            entry = []
        entry.append(line)
    yield entry


def _joined(lines: Sequence[str]) -> str:
    return " ".join(" ".join(lines).split())
