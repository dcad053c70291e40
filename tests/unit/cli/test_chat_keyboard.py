"""The keyboard of a terminal: which keys are read and shown in the middle of an answer."""

from __future__ import annotations

import os
import select
import sys
import termios
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from modelyard.cli.chat.keyboard import Keyboard, ReadKey


@dataclass(frozen=True)
class Window:
    """A terminal, and the keyboard of the program in it."""

    shown: int
    terminal: int

    @property
    def keyboard(self) -> Keyboard:
        return Keyboard(self.terminal)

    @property
    def shows_keys(self) -> bool:
        return bool(termios.tcgetattr(self.terminal)[3] & termios.ECHO)

    def type(self, keys: bytes) -> None:
        os.write(self.shown, keys)

    def arrived(self) -> None:
        """Wait until what was typed has arrived."""
        assert select.select([self.terminal], [], [], 10)[0]

    def key(self, read: ReadKey) -> str:
        """The next key."""
        self.arrived()
        return read()


@pytest.fixture
def window() -> Iterator[Window]:
    shown, terminal = os.openpty()
    yield Window(shown, terminal)
    os.close(shown)
    os.close(terminal)


def test_a_key_is_read_without_enter_and_what_was_typed_before_is_dropped(window: Window) -> None:
    window.type(b"y\n")
    window.arrived()
    with window.keyboard.single_keys() as read:
        assert read() == ""
        assert not window.shows_keys
        for typed, key in ((b"N", "n"), (b"y\r", "y"), (b"\x1b[A", ""), (b"yes", ""), (b"1", "")):
            window.type(typed)
            assert window.key(read) == key, typed
    assert window.shows_keys


def test_keys_that_are_not_shown_are_read_later(window: Window) -> None:
    with window.keyboard.unshown():
        assert not window.shows_keys
        window.type(b"later\n")
    assert window.shows_keys
    window.arrived()
    assert os.read(window.terminal, 100) == b"later\n"


def test_the_modes_are_as_before_after_an_error(window: Window) -> None:
    with pytest.raises(KeyboardInterrupt), window.keyboard.single_keys():
        raise KeyboardInterrupt
    assert window.shows_keys


def test_without_a_terminal_there_is_no_keyboard(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull, encoding="ascii") as nothing:  # noqa: PTH123 (no path)
        monkeypatch.setattr(sys, "stdin", nothing)
        assert Keyboard.find() is None
