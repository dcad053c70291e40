"""Sizes and durations as people read them, in log lines, tables and messages."""

from __future__ import annotations


def size_text(count: int) -> str:
    """Return a number of bytes with a unit, in powers of 1000."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count >= 0.9995 * factor:
            return f"{count / factor:,.1f} {unit}" if unit == "GB" else f"{count / factor:,.0f} {unit}"
    return f"{count / 1e3:,.0f} kB" if count >= 1000 else f"{count} B"


def part_text(part: int, whole: int) -> str:
    """Return two numbers of bytes as "5.1 of 12.0 GB": in the unit of the second one, unless the first has another."""
    number, _, unit = size_text(part).partition(" ")
    of = size_text(whole)
    return f"{number} of {of}" if of.endswith(f" {unit}") else f"{number} {unit} of {of}"


def duration_text(seconds: float) -> str:
    """Return a duration in its largest unit, such as "4.1 s", "42 s", "3 min" or "2 h"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 5970:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def count_text(count: int, noun: str, plural: str | None = None) -> str:
    """Return a count with its noun, such as "1 answer" or "2 answers"."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"
