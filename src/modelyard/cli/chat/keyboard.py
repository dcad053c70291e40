"""The keyboard of a terminal: single keys for questions in the middle of an answer, and keys that are not shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

_MAX_READ_BYTES: Final = 1024

# Indices of a terminal's modes. Source: https://docs.python.org/3/library/termios.html#termios.tcgetattr
_LOCAL_FLAGS: Final = 3
_CONTROL_CHARACTERS: Final = 6


class ReadKey(Protocol):
    """Returns the key that was pressed, in lower case; "": none was, or something else than a letter."""

    def __call__(self) -> str:
        """Return the key, without waiting for one."""


class Keyboard:
    """Standard input, where it is a terminal whose modes can be set; ``find`` returns it.

    Args:
        descriptor: of the terminal.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @staticmethod
    def find() -> Keyboard | None:
        """Return the keyboard of this process; None: nobody can press keys, or no mode can be set, as on Windows."""
        return Keyboard(sys.stdin.fileno()) if sys.platform != "win32" and sys.stdin.isatty() else None

    @contextmanager
    def single_keys(self) -> Iterator[ReadKey]:
        """Read key by key in the context, without showing them. Ctrl-C stays an interrupt.

        What was typed before is dropped: it was not meant as an answer to a question that nobody had seen.
        """
        import termios

        modes = termios.tcgetattr(self._descriptor)
        modes[_LOCAL_FLAGS] &= ~(termios.ICANON | termios.ECHO)
        modes[_CONTROL_CHARACTERS][termios.VMIN], modes[_CONTROL_CHARACTERS][termios.VTIME] = 1, 0
        with self._in_modes(modes, termios.TCSAFLUSH):
            yield self._read

    @contextmanager
    def unshown(self) -> Iterator[None]:
        """Keep keys that are pressed within the context off the screen, where they would break answers.

        They are not lost: the next prompt reads them.
        """
        import termios

        modes = termios.tcgetattr(self._descriptor)
        modes[_LOCAL_FLAGS] &= ~termios.ECHO
        with self._in_modes(modes, termios.TCSADRAIN):
            yield

    @contextmanager
    def _in_modes(self, modes: list[Any], when: int) -> Iterator[None]:
        import termios

        before = termios.tcgetattr(self._descriptor)
        termios.tcsetattr(self._descriptor, when, modes)
        try:
            yield
        finally:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, before)

    def _read(self) -> str:
        import select

        ready, _, _ = select.select([self._descriptor], [], [], 0)
        if not ready:
            return ""
        # An arrow or a paste arrives as several bytes, of which none is an answer. Enter may follow a letter.
        typed = os.read(self._descriptor, _MAX_READ_BYTES).decode("ascii", "replace").rstrip("\r\n")
        return typed.lower() if len(typed) == 1 and typed.isalpha() else ""
