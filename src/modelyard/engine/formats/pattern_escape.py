"""Escapes of single characters in ECMAScript's regular expressions, in the syntax of Rust's regex-syntax. Pure."""

from __future__ import annotations

import re
from typing import Final

_CONTROL: Final = re.compile(r"\\c([A-Za-z])")
_NUL: Final = re.compile(r"\\0[0-7]{0,2}")
_PAIR: Final = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_UNIT: Final = re.compile(r"\\u([0-9a-fA-F]{4})")
_POINT: Final = re.compile(r"\\[ux]\{[0-9a-fA-F]{1,8}\}")
_BYTE: Final = re.compile(r"\\x[0-9a-fA-F]{2}")

SPACE: Final = r"\t\n\x0b\f\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
r"""The characters of ``\s``, to be put into a class: Rust's has U+0085 and lacks U+FEFF."""

MAX_NAME: Final = 128
"""Characters of a name of a group or of a class of Unicode."""

PROPERTY: Final = re.compile(rf"\\[pP](?:\{{[^}}]{{0,{MAX_NAME}}}\}}|[A-Za-z])")
"""A class of Unicode, which is written alike."""


def control_or_code(pattern: str, at: int) -> tuple[str, int] | None:
    """Return how the character that the escape at ``at`` names by its code is written, and where the escape ends.

    "": half of a surrogate pair, which no text has. None: it is another escape.
    """
    if (control := _CONTROL.match(pattern, at)) is not None:
        return rf"\x{ord(control[1].upper()) - 64:02x}", control.end()
    if (octal := _NUL.match(pattern, at)) is not None:
        return rf"\x{int(octal[0][1:], 8):02x}", octal.end()
    if (pair := _PAIR.match(pattern, at)) is not None:
        point = 0x10000 + ((int(pair[1], 16) - 0xD800) << 10) + int(pair[2], 16) - 0xDC00
        return rf"\x{{{point:x}}}", pair.end()
    if (unit := _UNIT.match(pattern, at)) is not None:
        return "" if 0xD800 <= int(unit[1], 16) < 0xE000 else unit[0], unit.end()
    if (whole := _POINT.match(pattern, at) or _BYTE.match(pattern, at)) is not None:
        return whole[0], whole.end()
    return None


def literal(escape: str) -> str:
    r"""Return an escape of a character that stands for itself; others unchanged.

    Here ``\<`` and ``\>`` are borders of words, and only ASCII is escaped.
    """
    character = escape[1:]
    return character if character in ("<", ">") or not character.isascii() else escape
