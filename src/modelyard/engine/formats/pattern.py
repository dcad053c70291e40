"""Writes regular expressions of JSON schemas in the syntax of llguidance, which has no look-around and no references.

A part that it cannot express is left out, so that the result matches all texts that the whole pattern does, and others.

Sources: https://262.ecma-international.org/#sec-patterns and https://docs.rs/regex-syntax.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_LOOK_AROUND: Final = re.compile(r"\(\?<?[=!]")
_REFERENCE: Final = re.compile(r"\\(?:[1-9][0-9]?|k<[^>]*>|k'[^']*')")
# Escapes of other dialects -> what they mean here.
_WRITTEN: Final = {r"\A": "^", r"\Z": "$", r"\z": "$", r"\e": r"\x1b", r"\h": r"[ \t]", r"\R": r"(?:\r?\n)"}
_CONTROL: Final = re.compile(r"\\c([A-Za-z])")
_ANY_TEXT: Final = r"(?s:.*)"


@dataclass(frozen=True, slots=True)
class Expressible:
    """A pattern that llguidance reads, and what was left out of it, such as ``(?=...)``."""

    pattern: str
    dropped: tuple[str, ...] = ()


def expressible(pattern: str) -> Expressible:
    """Return ``pattern`` without look-arounds, word boundaries and references to groups."""
    written: list[str] = []
    dropped: dict[str, None] = {}
    at, in_class = 0, False
    while at < len(pattern):
        if pattern[at] == "\\":
            text, end, lost = _escape(pattern, at, in_class=in_class)
            if lost:
                dropped[lost] = None
        elif in_class:
            text, end = pattern[at], at + 1
            in_class = text != "]"
        elif pattern[at] == "[":
            # A bracket that closes nothing yet is a character of the class in most dialects.
            text = "[^" if pattern.startswith("[^", at) else "["
            end, in_class = at + len(text), True
            if pattern.startswith("]", end):
                text, end = text + r"\]", end + 1
        elif (look := _LOOK_AROUND.match(pattern, at)) is not None:
            text, end = "", _quantified(pattern, _end_of_group(pattern, at))
            dropped[f"{look[0]}...)"] = None
        elif pattern.startswith("(?>", at):
            text, end = "(?:", at + 3
            dropped["(?>...)"] = None
        else:
            text, end = pattern[at], at + 1
        written.append(text)
        at = end
    return Expressible("".join(written), tuple(dropped))


def _escape(pattern: str, at: int, *, in_class: bool) -> tuple[str, int, str]:
    """Return how the escape at ``at`` is written here, where it ends, and its name if it is left out."""
    escape = pattern[at : at + 2]
    if (control := _CONTROL.match(pattern, at)) is not None:
        return rf"\x{ord(control[1].upper()) - 64:02x}", control.end(), ""
    if in_class:
        # In a class, \b is a backspace.
        return (r"\x08" if escape == r"\b" else escape), at + len(escape), ""
    if escape in (r"\b", r"\B", r"\G"):
        return "", _quantified(pattern, at + 2), escape
    if (reference := _REFERENCE.match(pattern, at)) is not None:
        return _ANY_TEXT, reference.end(), reference[0]
    return _WRITTEN.get(escape, escape), at + len(escape), ""


def _end_of_group(pattern: str, at: int) -> int:
    """Return the end of the group that opens at ``at``: behind its bracket, or the end of a pattern without it."""
    depth, in_class = 0, False
    while at < len(pattern):
        character = pattern[at]
        if character == "\\":
            at += 1
        elif in_class:
            in_class = character != "]"
        elif character == "[":
            in_class = True
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    return len(pattern)


def _quantified(pattern: str, at: int) -> int:
    """Return the end of the quantifier at ``at``, which would repeat what was left out; ``at`` if there is none."""
    quantifier = _QUANTIFIER.match(pattern, at)
    return at if quantifier is None else quantifier.end()


_QUANTIFIER: Final = re.compile(r"(?:[*+?]|\{[0-9]+(?:,[0-9]*)?\})[?+]?")
