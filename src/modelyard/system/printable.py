"""Text of strangers, made fit for one line of a log or a terminal."""

from __future__ import annotations


def printable(text: str, limit: int | None = None) -> str:
    """Return ``text`` with everything escaped that does not print, such as control characters and line breaks.

    They would end a line of the log, begin a forged one, or drive the terminal that shows it.

    Args:
        text: the text.
        limit: the number of characters that are returned at most, with a mark of the cut; None: all.
    """
    cut = limit is not None and len(text) > limit
    if cut:
        text = text[:limit]
    if not text.isprintable():
        text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return f"{text[:limit]}…" if cut else text


def shortened(text: str, limit: int) -> str:
    """Return at most ``limit`` characters of ``text``, with a mark of the cut."""
    return text if len(text) <= limit else f"{text[:limit]}…"


def printable_lines(text: str) -> str:
    """Return ``text`` with its line breaks, and with everything else escaped that does not print."""
    return "\n".join(map(printable, text.split("\n")))
