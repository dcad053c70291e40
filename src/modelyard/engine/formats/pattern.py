"""Writes regular expressions of JSON schemas in the syntax of llguidance, which has no look-around and no references.

JSON schemas have ECMAScript's syntax, and llguidance that of Rust's regex-syntax. What one reads otherwise than the
other is translated. A part that llguidance cannot express is left out, so that the result matches all texts that the
whole pattern does, and others.

Sources: https://262.ecma-international.org/#sec-patterns, with its Annex B, and https://docs.rs/regex-syntax.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from modelyard.engine.formats.pattern_class import character_class
from modelyard.engine.formats.pattern_escape import MAX_NAME, PROPERTY, SPACE, control_or_code, literal

_LOOK_AROUND: Final = re.compile(r"\(\?<?[=!]")
# Names are bounded: without an end, each beginning would search the rest of the pattern for it.
_NAMED_GROUP: Final = re.compile(rf"\(\?(?:P?<[^>=!]{{0,{MAX_NAME}}}>|'[^']{{0,{MAX_NAME}}}')")
_FLAGS: Final = re.compile(r"\(\?(?P<flags>[a-zA-Z]*(?:-[a-zA-Z]+)?)(?P<end>[:)])")
_REFERENCE: Final = re.compile(rf"\\(?:[1-9][0-9]?|k<[^>]{{0,{MAX_NAME}}}>|k'[^']{{0,{MAX_NAME}}}')")
_QUANTIFIER: Final = re.compile(r"(?:[*+?]|\{[0-9]+(?:,[0-9]*)?\})[?+]?")
# Escapes of other dialects -> what they mean here.
_WRITTEN: Final = {
    r"\A": "^",
    r"\Z": "$",
    r"\z": "$",
    r"\e": r"\x1b",
    r"\h": r"[ \t]",
    r"\R": r"(?:\r?\n)",
    r"\s": f"[{SPACE}]",
    r"\S": f"[^{SPACE}]",
}
_NEITHER: Final = (r"\b", r"\B", r"\G")
_READ: Final = frozenset("dDwWsSpPnrtfva")
_ANY_TEXT: Final = r"(?s:.*)"
# ECMAScript's dot matches none of its four line terminators, Rust's only excludes the first.
_DOT: Final = r"[^\n\r\u2028\u2029]"


@dataclass(frozen=True, slots=True)
class Expressible:
    """A pattern that llguidance reads, and what was left out of it, such as ``(?=...)``."""

    pattern: str
    dropped: tuple[str, ...] = ()


_Kind = Literal["open", "close", "or", "^", "$", "atom", "quantifier", "nothing"]


class _Part(NamedTuple):
    """A part of a pattern as it is written here; ``lost`` names what was left out in its place."""

    kind: _Kind
    text: str
    end: int
    lost: str = ""


def expressible(pattern: str) -> Expressible:
    """Return ``pattern`` in the syntax of llguidance, without what that cannot express."""
    parts: list[_Part] = []
    at = 0
    while at < len(pattern):
        part = _part(pattern, at, parts[-1].kind if parts else "open")
        if part.lost and parts and part.lost[0] == parts[-1].kind:
            # A repeated anchor may be there no time at all.
            parts[-1] = parts[-1]._replace(text="")
        parts.append(part)
        at = part.end
    if any(part.lost == "(?m)" for part in parts):
        parts = [part._replace(text="", lost=part.kind) if part.kind in ("^", "$") else part for part in parts]
    parts = _without_inner_anchors(_without_repeated_anchors(parts), "^")
    parts = _without_inner_anchors(parts[::-1], "$")[::-1]
    has_dots = "s" in "".join(found["flags"] for found in _FLAGS.finditer(pattern))
    written = "".join("." if part.text == _DOT and has_dots else part.text for part in parts)
    return Expressible(written, tuple(dict.fromkeys(part.lost for part in parts if part.lost)))


def _part(pattern: str, at: int, before: _Kind) -> _Part:
    """Return the part at ``at``; ``before`` is the kind of the one before it."""
    character = pattern[at]
    if character == "\\":
        return _escape(pattern, at)
    if character == "[":
        text, end, lost = character_class(pattern, at)
        return _Part("atom" if text else "nothing", text, end, lost)
    if character == "(":
        return _group(pattern, at)
    if (quantifier := _QUANTIFIER.match(pattern, at)) is not None and before in ("atom", "close"):
        return _Part("quantifier", quantifier[0], quantifier.end())
    if quantifier is not None and before in ("nothing", "^", "$"):
        # It repeats what was left out, or an anchor.
        return _Part("nothing", "", quantifier.end(), "" if before == "nothing" else f"{before}{quantifier[0]}")
    match character:
        case "{":
            return _Part("atom", r"\{", at + 1)
        case ")":
            return _Part("close", ")", at + 1)
        case "|":
            return _Part("or", "|", at + 1)
        case "^" | "$":
            return _Part("^" if character == "^" else "$", character, at + 1)
        case ".":
            return _Part("atom", _DOT, at + 1)
    return _Part("atom", character, at + 1)


def _group(pattern: str, at: int) -> _Part:
    if (look := _LOOK_AROUND.match(pattern, at)) is not None:
        return _Part("nothing", "", _end_of_group(pattern, at), f"{look[0]}...)")
    if pattern.startswith("(?#", at):
        # A comment that does not end is the rest of the pattern.
        end = pattern.find(")", at)
        return _Part("nothing", "", end + 1 if end >= 0 else len(pattern))
    if (named := _NAMED_GROUP.match(pattern, at)) is not None:
        # Names follow other rules here, and nothing refers to them.
        return _Part("open", "(", named.end())
    if pattern.startswith("(?>", at):
        return _Part("open", "(?:", at + 3, "(?>...)")
    if (flagged := _FLAGS.match(pattern, at)) is None:
        return _Part("open", "(", at + 1)
    flags = flagged["flags"]
    # Anchors at lines cannot be expressed.
    is_by_line = "m" in flags.partition("-")[0]
    kept = flags.replace("m", "").removesuffix("-")
    if flagged["end"] == ":":
        return _Part("open", f"(?{kept}:", flagged.end(), "(?m)" if is_by_line else "")
    return _Part("nothing", f"(?{kept})" if kept else "", flagged.end(), "(?m)" if is_by_line else "")


def _escape(pattern: str, at: int) -> _Part:
    """Return the escape at ``at``."""
    escape = pattern[at : at + 2]
    if escape in _NEITHER:
        return _Part("nothing", "", at + 2, escape)
    if (reference := _REFERENCE.match(pattern, at)) is not None:
        return _Part("atom", _ANY_TEXT, reference.end(), reference[0])
    if (coded := control_or_code(pattern, at)) is not None:
        text, end = coded
        return _Part("atom", text or _ANY_TEXT, end, "" if text else pattern[at:end])
    if (named := PROPERTY.match(pattern, at)) is not None:
        return _Part("atom", named[0], named.end())
    written = _WRITTEN.get(escape)
    if written in ("^", "$"):
        return _Part("^" if written == "^" else "$", written, at + 2)
    if written is None and escape[1:].isascii() and escape[1:].isalpha() and escape[1:] not in _READ:
        return _Part("atom", _ANY_TEXT, at + 2, escape)
    return _Part("atom", written or literal(escape), at + len(escape))


def _without_repeated_anchors(parts: list[_Part]) -> list[_Part]:
    """Return the parts without the anchors in groups that a quantifier follows, which llguidance refuses."""
    # The group that each bracket opens or closes, by their places.
    opened: list[int] = []
    repeated: set[int] = set()
    for at, part in enumerate(parts):
        if part.kind == "open":
            opened.append(at)
        elif part.kind == "close" and opened:
            begin = opened.pop()
            if at + 1 < len(parts) and parts[at + 1].kind == "quantifier":
                repeated |= {begin, at}
    result, depth = [], 0
    for at, part in enumerate(parts):
        if at in repeated:
            depth += 1 if part.kind == "open" else -1
        is_lost = depth > 0 and part.kind in ("^", "$") and bool(part.text)
        result.append(_Part("nothing", "", part.end, part.kind) if is_lost else part)
    return result


def _without_inner_anchors(parts: list[_Part], anchor: Literal["^", "$"]) -> list[_Part]:
    """Return the parts without those anchors that are not where a text may begin, which llguidance refuses.

    Args:
        parts: the parts; in reverse order for the anchor of the end.
        anchor: the anchor that is looked for.
    """
    opens: _Kind = "open" if anchor == "^" else "close"
    closes: _Kind = "close" if anchor == "^" else "open"
    result: list[_Part] = []
    # Whether the text may begin here, and where each open group begins.
    may_begin, begins = True, [True]
    for part in parts:
        if part.kind == opens:
            begins.append(may_begin)
        elif part.kind == closes:
            may_begin = False
            if len(begins) > 1:
                begins.pop()
        elif part.kind == "or":
            may_begin = begins[-1]
        elif part.kind == anchor and part.text and not may_begin:
            part = _Part("nothing", "", part.end, anchor)
        elif part.kind in ("atom", "quantifier"):
            may_begin = False
        result.append(part)
    return result


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
