"""Character classes of ECMAScript's regular expressions, in the syntax of Rust's regex-syntax. Pure.

Here classes nest, and ``&&``, ``--`` and ``~~`` are operations on sets; in ECMAScript these are characters.
"""

from __future__ import annotations

import re
from typing import Final

from modelyard.engine.formats.pattern_escape import PROPERTY, SPACE, control_or_code, literal

# Classes of POSIX, which some write in JSON schemas too.
_POSIX: Final = re.compile(r"\[:\^?[a-z]+:\]")
_OCTAL: Final = re.compile(r"\\[1-7][0-7]{0,2}")
# How the two brackets begin as characters of a class, by its beginning. In ECMAScript these match nothing at all.
_BOTH: Final = {"[": "][", "[^": "][]"}
# All up to the next bracket.
_BRACKET: Final = re.compile(r"(?:[^\\\[\]]|\\.)*+([\[\]])", re.DOTALL)
_SETS: Final = frozenset("dDwWsSpP")
_READ: Final = frozenset("nrtfva")
_ANY: Final = r"(?s:.)"


def character_class(pattern: str, at: int) -> tuple[str, int, str]:
    """Return how the class at ``at`` is written, where it ends, and what was left out of it; "" if nothing was."""
    text = "[^" if pattern.startswith("[^", at) else "["
    end = at + len(text)
    if pattern.startswith("]", end):
        following = _BRACKET.match(pattern, end + 1)
        if (following is None or following[1] == "[") and not pattern.startswith(_BOTH[text], end):
            # ECMAScript's classes of no character and of all characters.
            return (_ANY, end + 1, "") if text == "[^" else ("", end + 1, "[]")
        # Else the next bracket would close nothing: this is another dialect, where the first one is a character.
        text, end = text + r"\]", end + 1
    written, lost = [text], ""
    was_set = False
    while end < len(pattern) and pattern[end] != "]":
        item, behind, is_set = _item(pattern, end)
        if pattern[end] == "-" and (was_set or written[-1] in ("-", r"\-") or _is_set(pattern, end + 1)):
            item = r"\-"
        if not item:
            lost = pattern[end:behind]
        written.append(item)
        end, was_set = behind, is_set
    if end < len(pattern):
        written.append("]")
    return "".join(written), min(end + 1, len(pattern)), lost


def _item(pattern: str, at: int) -> tuple[str, int, bool]:
    """Return how the item at ``at`` is written, where it ends, and whether it stands for several characters."""
    character = pattern[at]
    if (posix := _POSIX.match(pattern, at)) is not None:
        return posix[0], posix.end(), True
    if character in "[&~":
        return f"\\{character}", at + 1, False
    if character != "\\":
        return character, at + 1, False
    if (coded := control_or_code(pattern, at)) is not None:
        return (*coded, False)
    if (octal := _OCTAL.match(pattern, at)) is not None:
        return rf"\x{{{int(octal[0][1:], 8):x}}}", octal.end(), False
    if (named := PROPERTY.match(pattern, at)) is not None:
        return named[0], named.end(), True
    escape = pattern[at : at + 2]
    if escape == r"\b":
        return r"\x08", at + 2, False
    if escape in (r"\s", r"\S"):
        return SPACE if escape == r"\s" else f"[^{SPACE}]", at + 2, True
    if escape[1:] in _SETS:
        return escape, at + 2, True
    if escape[1:].isalnum() and escape[1:].isascii() and escape[1:] not in _READ:
        # Annex B: it stands for itself.
        return escape[1:], at + 2, False
    return literal(escape), at + len(escape), False


def _is_set(pattern: str, at: int) -> bool:
    return pattern.startswith("\\", at) and pattern[at + 1 : at + 2] in _SETS
