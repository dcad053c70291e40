"""Single keys of a terminal, for questions in the middle of an answer."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Protocol

_MAX_READ_BYTES = 1024


class ReadKey(Protocol):
    """Returns the key that was pressed, in lower case; "": none was, or something else than a letter."""

    def __call__(self) -> str:
        """Return the key, without waiting for one."""


def has_keyboard() -> bool:
    """Whether somebody can answer questions with keys: standard input is a terminal whose modes can be set."""
    return sys.platform != "win32" and sys.stdin.isatty()


@contextlib.contextmanager
def single_keys() -> Iterator[ReadKey]:
    """Read the terminal key by key in the context, without showing them. Ctrl-C stays an interrupt.

    What was typed before is dropped: it was not meant as an answer to a question that nobody had seen.
    """
    if sys.platform == "win32":
        raise NotImplementedError("has_keyboard is to be asked first")
    import select
    import termios

    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    raw = termios.tcgetattr(keyboard)
    raw[3] &= ~(termios.ICANON | termios.ECHO)
    raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
    termios.tcsetattr(keyboard, termios.TCSAFLUSH, raw)

    def read() -> str:
        ready, _, _ = select.select([keyboard], [], [], 0)
        if not ready:
            return ""
        # An arrow or a paste arrives as several bytes, of which none is an answer. Enter may follow a letter.
        typed = os.read(keyboard, _MAX_READ_BYTES).decode("ascii", "replace").rstrip("\r\n")
        return typed.lower() if len(typed) == 1 and typed.isalpha() else ""

    try:
        yield read
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
