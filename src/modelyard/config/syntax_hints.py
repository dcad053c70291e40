"""What to write in place of a mistake in the syntax of TOML, for those that are made most."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_QUOTES: Final = "“”„‟«»‘’‚‹›"
_QUANTITY: Final = re.compile(r"[\d.]+\s*(?:%|[A-Za-z]\w*)")
_WORD: Final = re.compile(r"[A-Za-z_~./$-][^\s#,\]}]*")
_KEY: Final = re.compile(r"""\s*["']?([\w.-]+)["']?\s*=""")


def hint_of(message: str, lines: Sequence[str], line: int) -> str:
    """Return what to write, as a sentence; "" where the mistake is none of the known ones.

    Args:
        message: what ``tomllib`` says, without the position.
        lines: of the document.
        line: of the mistake, counted from 1.
    """
    text = lines[line - 1]
    if any(quote in text for quote in _QUOTES):
        return "TOML takes straight quotes only: \"text\" or 'text'."
    if text.lstrip().startswith(("//", ";", "--", "/*")):
        return "A comment begins with #."
    if message == "this is no value":
        return _value_hint(text.partition("=")[2].partition(" #")[0].strip())
    if message.startswith("expected '='"):
        return "Write key = value." if "=" not in text else "A key is one word: it has no blanks."
    if message.endswith("a second time"):
        return _duplicate_hint(lines, line)
    if message.startswith(("illegal character '\\n'", "unterminated string")):
        return "Close the quotes."
    if message == "this value has no end":
        return "Close it: a list ends with ], text with the quotes that it began with."
    if "\\" in message or "hex value" in message:
        return "Write a path with backslashes in single quotes: 'C:\\models\\qwen.gguf'."
    if "']" in message:
        return "A table is opened by [name], one of several by [[name]]."
    return ""


def _value_hint(value: str) -> str:
    if not value or value.startswith("#"):
        return "Write a value behind the =, or remove the line."
    if value.lower().rstrip(",") in ("true", "false", "yes", "no", "on", "off"):
        return "Write true or false, in small letters."
    if value.lower() in ("none", "null", "nil"):
        return "Remove the line: a key that is not set has its default."
    if _QUANTITY.match(value) or _WORD.match(value):
        return "Put it in quotes: text, sizes and durations are written as text."
    return ""


def _duplicate_hint(lines: Sequence[str], line: int) -> str:
    text = lines[line - 1]
    if text.lstrip().startswith("["):
        name = _header_name(text)
        first = next((number for number, other in enumerate(lines[: line - 1], 1) if _header_name(other) == name), None)
        place = f" It is in line {first} already." if first else ""
        return f"Open each table once; only tables in double brackets, as [[models]], may be repeated.{place}"
    key = _KEY.match(text)
    for number in range(line - 1, 0, -1):
        other = lines[number - 1]
        if other.lstrip().startswith("["):
            break
        match = _KEY.match(other)
        if key is not None and match is not None and match[1] == key[1]:
            return f"Keep one of them: the key is set in line {number} already."
    return "Keep one of them: the key is set already."


def _header_name(line: str) -> str | None:
    """Return the name of the table that a line opens; None where it opens none."""
    return line.strip().strip("[]").strip() if line.lstrip().startswith("[") else None
