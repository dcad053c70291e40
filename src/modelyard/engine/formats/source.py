"""The text of an answer as it arrives, for parsers that are written as generators.

A parser asks for text; where there is none yet, it yields, and goes on with the next piece. So a format reads from top
to bottom like a parser of whole texts, and cannot tell how its text was split.

Hot path: runs once a token within a call. Only text that is not yet certain is kept, so that the work for each piece
depends on the piece alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence

# A generator that waits for text at each yield.
Waiting = Generator[None, None, None]

# Longest name or id; one that is longer is no call.
MAX_WORD_LENGTH = 256

_SPACE = re.compile(r"[ \t\r\n]+")
_WORD = re.compile(r"[\w.:/-]+")


class Malformed(Exception):
    """The text is no call from here on: it is content."""


def partial_marker(text: str, markers: Sequence[str]) -> int:
    """Length of the longest end of ``text`` that begins one of ``markers``, but is not the whole of it."""
    longest = 0
    for marker in markers:
        for length in range(min(len(marker) - 1, len(text)), longest, -1):
            if text.endswith(marker[:length]):
                longest = length
                break
    return longest


def first_marker(text: str, markers: Sequence[str], start: int = 0) -> tuple[int, str]:
    """Where in ``text`` the first of ``markers`` is, and which; (-1, "") where none is."""
    best, which = -1, ""
    for marker in markers:
        at = text.find(marker, start, best + len(marker) if best >= 0 else len(text))
        if at >= 0 and (best < 0 or at < best):
            best, which = at, marker
    return best, which


class Source:
    """Text that was read up to ``at``, and more to come unless it is closed.

    Attributes:
        text: the piece at hand: a short rest of what came before, and the last piece.
        at: how far in ``text`` it was read.
    """

    __slots__ = ("_marked", "_marked_from", "at", "closed", "text")

    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        self.closed = False
        self._marked: list[str] | None = None
        self._marked_from = 0

    def feed(self, text: str) -> None:
        """Add a piece; what was read is let go."""
        if self._marked is not None:
            self._marked.append(self.text[self._marked_from : self.at])
            self._marked_from = 0
        self.text = self.text[self.at :] + text
        self.at = 0

    def mark(self, before: str = "") -> None:
        """Keep what is read from here on, and ``before`` with it, for ``since_mark``."""
        self._marked = [before]
        self._marked_from = self.at

    def since_mark(self) -> str:
        """All that was read since the mark, which is taken away."""
        text = "".join(self._marked or ()) + self.text[self._marked_from : self.at]
        self._marked = None
        return text

    def more(self) -> Generator[None, None, bool]:
        """Wait until there is unread text; False where none will come."""
        while self.at >= len(self.text):
            if self.closed:
                return False
            yield
        return True

    def peek(self) -> Generator[None, None, str]:
        """The next character, unread; "" at the end."""
        if self.at >= len(self.text) and not (yield from self.more()):
            return ""
        return self.text[self.at]

    def take(self, literal: str) -> Generator[None, None, bool]:
        """Read ``literal`` where the text goes on with it; else read nothing."""
        while True:
            have = self.text[self.at : self.at + len(literal)]
            if have == literal:
                self.at += len(literal)
                return True
            if not literal.startswith(have) or self.closed:
                return False
            yield

    def expect(self, literal: str) -> Waiting:
        """Read ``literal``.

        Raises:
            Malformed: the text goes on with something else, or ends.
        """
        if not (yield from self.take(literal)):
            raise Malformed

    def space(self) -> Generator[None, None, str]:
        """Read white space, and return the next character unread; "" at the end."""
        while (yield from self.more()):
            if (run := _SPACE.match(self.text, self.at)) is None:
                return self.text[self.at]
            self.at = run.end()
        return ""

    def word(self) -> Generator[None, None, str]:
        """Read a name or an id: letters, digits and ``_ . : / -``.

        Raises:
            Malformed: there is none, or it is too long.
        """
        return (yield from self.run(_WORD, MAX_WORD_LENGTH))

    def run(self, pattern: re.Pattern[str], most: int) -> Generator[None, None, str]:
        """Read all that goes on matching ``pattern``, which matches character by character.

        Raises:
            Malformed: there is nothing of it, or more than ``most`` characters.
        """
        parts: list[str] = []
        left = most
        while (yield from self.more()) and (run := pattern.match(self.text, self.at)):
            if run.end() - self.at > left:
                # As far as it would have come with any other split of the text.
                self.at += left
                raise Malformed
            left -= run.end() - self.at
            parts.append(run.group())
            self.at = run.end()
        if not parts:
            raise Malformed
        return "".join(parts)

    def pour(self, markers: Sequence[str], sink: Callable[[str], object]) -> Generator[None, None, str]:
        """Give all text before the first of ``markers`` to ``sink``; read the marker, and return it.

        At the end without one: all text has gone to ``sink``, and "" is returned.
        """
        while True:
            at, marker = first_marker(self.text, markers, self.at)
            if marker:
                if at > self.at:
                    sink(self.text[self.at : at])
                self.at = at + len(marker)
                return marker
            rest = self.text[self.at :]
            keep = 0 if self.closed else partial_marker(rest, markers)
            if len(rest) > keep:
                sink(rest[: len(rest) - keep])
                self.at = len(self.text) - keep
            if self.closed:
                return ""
            yield

    def until(self, marker: str, most: int | None = None) -> Generator[None, None, str]:
        """Read up to and with ``marker``; return what came before it.

        Raises:
            Malformed: the text ends without it, or goes on for more than ``most`` characters before it.
        """
        parts: list[str] = []
        left = most
        while True:
            at = self.text.find(marker, self.at)
            end = at if at >= 0 else len(self.text) - (0 if self.closed else partial_marker(self.text, (marker,)))
            end = max(end, self.at)
            if left is not None:
                if end - self.at > left:
                    self.at += left
                    raise Malformed
                left -= end - self.at
            parts.append(self.text[self.at : end])
            self.at = end
            if at >= 0:
                self.at += len(marker)
                return "".join(parts)
            if self.closed:
                raise Malformed
            yield
