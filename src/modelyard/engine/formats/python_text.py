"""Python literals, read as JSON, for models that write calls or values in Python.

Source of the grammar: https://docs.python.org/3/reference/lexical_analysis.html#literals
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from typing import Final

from modelyard.engine.formats.json_text import PYTHON_CONSTANTS, decode
from modelyard.engine.formats.source import Malformed, Source

# Deeper than any real argument; each level is a few nested generators.
_MAX_DEPTH: Final = 32
_MAX_ATOM_LENGTH: Final = 1000

_ATOM = re.compile(r"[-+.\w]+")
_NUMBER = re.compile(r"(?P<sign>[-+]?)(?P<int>\d*)(?P<fraction>\.\d*)?(?P<exponent>[eE][-+]?\d+)?", re.ASCII)
_ESCAPES: Final = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "0": "\0",
    "\n": "",
    **{character: character for character in "\\'\"/"},
}
_HEX_ESCAPES: Final = {"x": 2, "u": 4, "U": 8}
_AFTER_STRINGS: Final = ",:)]}"
_BRACKETS: Final = {"[": "]", "(": ")", "{": "}"}


def python_as_json(text: str) -> str | None:
    """Return one Python literal as JSON; None if ``text`` is none."""
    source = Source()
    source.feed(text)
    source.closed = True
    try:
        reader = python_value(source)
        while True:
            next(reader)
    except Malformed:
        return None
    except StopIteration as ended:
        rest = source.text[source.at :].strip()
        return None if rest else str(ended.value)


def read_comma(source: Source, closer: str) -> Generator[None, None, bool]:
    """Read a comma, if one comes next, and return whether another item follows.

    Raises:
        Malformed: neither a comma nor ``closer`` comes next.
    """
    character = yield from source.space()
    if character == ",":
        source.at += 1
        return (yield from source.space()) != closer
    if character != closer and not (yield from source.ends()):
        raise Malformed
    return False


def python_value(source: Source, depth: int = 0) -> Generator[None, None, str]:
    """Read one Python literal, and return it as JSON.

    Raises:
        Malformed: it is none, or nests too deeply.
    """
    character = yield from source.space()
    if depth > _MAX_DEPTH:
        raise Malformed
    if character and character in "\"'":
        return json.dumps((yield from _string(source)), ensure_ascii=False)
    if character not in _BRACKETS:
        return python_atom((yield from source.run(_ATOM, _MAX_ATOM_LENGTH)))
    source.at += 1
    closer = _BRACKETS[character]
    items: list[str] = []
    while (yield from source.space()) != closer:
        item = yield from python_value(source, depth + 1)
        if closer == "}":
            if (yield from source.space()) != ":":
                raise Malformed
            source.at += 1
            # JSON has no keys but strings.
            key = item if item.startswith('"') else json.dumps(item)
            item = f"{key}: {(yield from python_value(source, depth + 1))}"
        items.append(item)
        if not (yield from read_comma(source, closer)):
            break
    yield from source.take(closer)
    joined = ", ".join(items)
    return f"{{{joined}}}" if closer == "}" else f"[{joined}]"


def _string(source: Source) -> Generator[None, None, str]:
    """Read a string. A quote that nothing follows which may follow a string belongs to it: models omit escapes."""
    quote = source.text[source.at]
    if (yield from source.take(quote * 3)):
        quote *= 3
    else:
        source.at += 1
    parts: list[str] = []
    while True:
        marker = yield from source.pour((quote, "\\"), parts.append)
        if marker == "\\":
            parts.append((yield from _escape(source)))
        elif not marker:
            raise Malformed
        else:
            space = yield from source.spaces()
            if not (yield from source.more()) or source.text[source.at] in _AFTER_STRINGS:
                return _joined(parts)
            parts.append(marker + space)


def _escape(source: Source) -> Generator[None, None, str]:
    character = yield from source.peek()
    source.at += len(character)
    if (length := _HEX_ESCAPES.get(character)) is None:
        return _ESCAPES.get(character, f"\\{character}")
    digits = ""
    while len(digits) < length:
        if not (digit := (yield from source.peek())):
            raise Malformed
        digits += digit
        source.at += 1
    try:
        return chr(int(digits, 16))
    except (OverflowError, ValueError):
        raise Malformed from None


def _joined(parts: list[str]) -> str:
    """Return a string whose pairs of surrogates, which JSON writes as two escapes, are single characters."""
    text = "".join(parts)
    if text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def python_atom(word: str) -> str:
    """Return a bare word of Python, or of JSON, as JSON.

    Raises:
        Malformed: it is neither a number nor a constant.
    """
    word = PYTHON_CONSTANTS.get(word, word)
    try:
        decode(word)
    except ValueError:
        number = _NUMBER.fullmatch(word.replace("_", ""))
        if number is None or not (number["int"] or number["fraction"]):
            raise Malformed from None
        sign, fraction = number["sign"].removeprefix("+"), (number["fraction"] or "").removesuffix(".")
        return f"{sign}{number['int'].lstrip('0') or '0'}{fraction}{number['exponent'] or ''}"
    return word
