"""Incremental JSON: text is checked as it arrives, and passed on as soon as it is certain.

Source of the grammar: RFC 8259. White space is passed on unchanged. A control character within a string, which models
write although JSON forbids it, is passed on as its escape, and Python's constants as those of JSON. Brackets that a
model leaves open are closed where the call ends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator
from typing import Any, NoReturn

from modelyard.engine.formats.source import Malformed, Source, Waiting

Emit = Callable[[str], object]

# Deeper than any real argument, and well within the limits of clients' JSON parsers.
MAX_DEPTH = 128

# Limit of a number's length: Python parses no integer of more than 4300 digits.
_MAX_ATOM_LENGTH = 1000

# Models that were trained on Python write its constants.
PYTHON_CONSTANTS = {"True": "true", "False": "false", "None": "null"}

_SPACE = re.compile(r"[ \t\r\n]+")
_RUN = re.compile(r'[^"\\\x00-\x1f]+')
_ATOM_PART = re.compile(r"[-+.0-9A-Za-z]+")
_ATOM = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null")
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_ESCAPE_BEGUN = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?")


def value(source: Source, emit: Emit) -> Waiting:
    """Read one JSON value and pass its text to ``emit`` as it arrives.

    Raises:
        Malformed: JSON does not allow the next character, or the text ends within the value.
    """
    closers: list[str] = []
    while True:
        character = yield from _space(source, emit)
        if character in ("{", "["):
            closer = "}" if character == "{" else "]"
            if len(closers) == MAX_DEPTH:
                raise Malformed
            source.at += 1
            emit(character)
            if (yield from _space(source, emit)) != closer:
                closers.append(closer)
                if closer == "}":
                    yield from _key(source, emit)
                continue
            source.at += 1
            emit(closer)
        elif character == '"':
            yield from string(source, emit)
        else:
            yield from _atom(source, emit)
        while closers:
            character = yield from _space(source, emit)
            if character == ",":
                source.at += 1
                emit(",")
                if closers[-1] == "}":
                    yield from _space(source, emit)
                    yield from _key(source, emit)
                break
            if character and character in closers:
                source.at += 1
                emit(_closed_down_to(closers, character))
            elif (yield from source.ends()):
                emit("".join(reversed(closers)))
                closers.clear()
            else:
                raise Malformed
        else:
            return


def _closed_down_to(closers: list[str], closer: str) -> str:
    """Return the brackets that close the open arrays and objects down to ``closer``, and remove them from the list."""
    closed = ""
    while not closed.endswith(closer):
        closed += closers.pop()
    return closed


def string(source: Source, emit: Emit) -> Waiting:
    """Read one JSON string, and pass its text, quotes included, to ``emit`` as it arrives.

    Raises:
        Malformed: the text is not a string, or ends within it.
    """
    yield from source.expect('"')
    emit('"')
    while (yield from source.more()):
        if run := _RUN.match(source.text, source.at):
            source.at = run.end()
            emit(run.group())
            continue
        character = source.text[source.at]
        if character == "\\":
            yield from _escape(source, emit)
            continue
        source.at += 1
        if character == '"':
            emit('"')
            return
        emit(json.dumps(character)[1:-1])
    raise Malformed


def read_string(source: Source) -> Generator[None, None, str]:
    """Read one JSON string, and return the decoded string.

    Raises:
        Malformed: the text is not a string, or ends within it.
    """
    parts: list[str] = []
    yield from string(source, parts.append)
    return str(json.loads("".join(parts)))


def read_value(source: Source) -> Generator[None, None, str]:
    """Read one JSON value, and return its text.

    Raises:
        Malformed: the text is not a value, or ends within it.
    """
    parts: list[str] = []
    yield from value(source, parts.append)
    return "".join(parts)


def decode(text: str) -> Any:
    """Return the decoded value of a JSON text.

    Raises:
        ValueError: it is not JSON, or nests too deeply for Python.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse_constant(name: str) -> NoReturn:
    # Python's parser accepts NaN and Infinity, which are not JSON.
    raise ValueError(name)


def _space(source: Source, emit: Emit) -> Generator[None, None, str]:
    while (yield from source.more()):
        if (run := _SPACE.match(source.text, source.at)) is None:
            return source.text[source.at]
        source.at = run.end()
        emit(run.group())
    return ""


def _key(source: Source, emit: Emit) -> Waiting:
    yield from string(source, emit)
    if (yield from _space(source, emit)) != ":":
        raise Malformed
    source.at += 1
    emit(":")


def _escape(source: Source, emit: Emit) -> Waiting:
    while (escape := _ESCAPE.match(source.text, source.at)) is None:
        if source.closed or _ESCAPE_BEGUN.fullmatch(source.text, source.at) is None:
            raise Malformed
        yield
    source.at = escape.end()
    emit(escape.group())


def _atom(source: Source, emit: Emit) -> Waiting:
    atom = yield from source.run(_ATOM_PART, _MAX_ATOM_LENGTH)
    atom = PYTHON_CONSTANTS.get(atom, atom)
    if _ATOM.fullmatch(atom) is None:
        raise Malformed
    emit(atom)
