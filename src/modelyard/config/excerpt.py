"""The line of a file that a problem is in, with a mark under the value, as compilers show it. Secrets are left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

MAX_CELLS: Final = 72
"""Columns of a terminal that the line takes. Longer ones are cut around the mark."""

_TAB: Final = "    "
_LEAD_CELLS: Final = 24
# Characters on either side of the mark's start that may be shown. A JSON file may be one line of a megabyte.
_NEAR_CHARS: Final = 4 * MAX_CELLS
# Longer lists are of something else than keys, and each problem looks through the lines above.
_MAX_LINES_ABOVE: Final = 2000
_SECRET_KEY: Final = (
    r"(?:[\w-]*api[_-]?keys?|keys?|[\w-]*token|token_source|[\w-]*secret[\w-]*|[\w-]*passw(?:or)?d|"
    r"[\w-]*credentials?|authorization|bearer|(?:env|headers)(?:\s*\.\s*[\w.\"'-]{1,64}?)?)"
)
_ASSIGNMENT: Final = re.compile(r"""^\s*["']?(?P<key>[\w.-]+)["']?\s*[=:]""")
_SECRET_ASSIGNMENT: Final = re.compile(rf"""(?:^|[\s,{{.])["']?{_SECRET_KEY}["']?\s*[=:]\s*""", re.IGNORECASE)
# Also one that lacks brackets at its end.
_HEADER: Final = re.compile(r"^\s*\[\[?\s*(?:[\w.\s-]+\]|(?:models|server|runtime|memory|hub|mcp)\b[\w.]*\s*(?:#.*)?$)")
# Every key of these tables may hold a secret, whatever its name.
_SECRET_HEADER: Final = re.compile(r"^\s*\[\[?\s*[\w.\s-]*\b(?:env|headers)\s*\]")
_SECRET_VALUE: Final = re.compile(r"\b(?:sk|hf|gsk|xai|ghp|pk)[-_][\w-]{6,}")


def excerpt(
    lines: Sequence[str], line: int, column: int, length: int, notes: Sequence[str], hidden_from: int | None = None
) -> str:
    """Return the line, a mark under ``length`` of its characters, and notes below it.

    Args:
        lines: all lines of the file, without their ends.
        line, column: where the mark begins, both counted from 1.
        length: characters under the mark; at least one is marked, and at most the rest of the line.
        notes: each of them one line, such as "help: write 4".
        hidden_from: offset in the line from which on it has a secret, as far as its document tells.
    """
    cuts = [cut for cut in (hidden_from, _secret_start(lines, line - 1)) if cut is not None]
    text, start, length = _without_secret(lines[line - 1], min(cuts, default=None), column - 1, length)
    begin = max(0, start - _NEAR_CHARS)
    near = [_shown(character) for character in text[begin : start + _NEAR_CHARS]]
    shown, indent, width = _window(near, start - begin, length)
    gutter = " " * len(str(line))
    marked = (f"{gutter} |", f"{line} | {shown}".rstrip(), f"{gutter} | {' ' * indent}{'^' * width}")
    return "\n".join((*marked, *(f"{gutter} = {note}" for note in notes)))


def _without_secret(text: str, cut: int | None, start: int, length: int) -> tuple[str, int, int]:
    """Return the line up to where a secret may stand in it, and the mark within what remains."""
    if cut is None:
        return text, start, length
    if start >= cut:
        start, length = cut, 1
    return f"{text[:cut]}…", start, min(length, cut + 1 - start)


def _secret_start(lines: Sequence[str], index: int) -> int | None:
    """Return the offset in the line from which on it may hold a secret."""
    text = lines[index]
    starts = [match.end() for match in (_SECRET_ASSIGNMENT.search(text),) if match is not None]
    starts += [match.start() for match in (_SECRET_VALUE.search(text),) if match is not None]
    assignment = _ASSIGNMENT.match(text)
    if assignment is not None and _is_in_secret_table(lines, index):
        starts.append(assignment.end())
    if assignment is None and not _HEADER.match(text):
        # A list over several lines: what it belongs to is above.
        for number in range(index - 1, max(-1, index - _MAX_LINES_ABOVE), -1):
            above = lines[number]
            if _HEADER.match(above):
                break
            if _ASSIGNMENT.match(above):
                if _SECRET_ASSIGNMENT.match(above):
                    starts.append(len(text) - len(text.lstrip()))
                break
    return min(starts, default=None)


def _is_in_secret_table(lines: Sequence[str], index: int) -> bool:
    """Whether the line is below the header of a table of secrets."""
    for number in range(index - 1, max(-1, index - _MAX_LINES_ABOVE), -1):
        if _HEADER.match(lines[number]):
            return _SECRET_HEADER.match(lines[number]) is not None
    return False


def _shown(character: str) -> str:
    """Return a character as a terminal may show it: nothing that moves its cursor or changes its colours."""
    if character == "\t":
        return _TAB
    return character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"


def _window(shown: Sequence[str], start: int, length: int) -> tuple[str, int, int]:
    """Return the part of a line around its mark, and the cells before and under the mark."""
    from rich.cells import cell_len

    widths = [cell_len(text) for text in shown]
    first = 0
    if sum(widths) > MAX_CELLS:
        before = sum(widths[:start])
        under = min(sum(widths[start : start + length]), MAX_CELLS - _LEAD_CELLS)
        while first < start and before - sum(widths[:first]) + under > MAX_CELLS - 2:
            first += max(1, start - first - _LEAD_CELLS)
    end, room = first, MAX_CELLS - (1 if first else 0)
    while end < len(shown) and room - widths[end] >= (1 if end + 1 < len(shown) else 0):
        room -= widths[end]
        end += 1
    lead = "…" if first else ""
    tail = "…" if end < len(shown) else ""
    indent = len(lead) + sum(widths[first:start])
    width = max(1, min(sum(widths[start : start + length]), sum(widths[start:end]) or 1))
    return f"{lead}{''.join(shown[first:end])}{tail}", indent, width
