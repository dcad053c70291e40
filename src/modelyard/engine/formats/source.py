"""The text of an answer as it arrives, for readers that are generators.

A reader that needs more text yields, and is resumed with the next piece. So it is written like a reader of whole texts,
and its result does not depend on how the text is split.

Hot path: runs once a token within a call. Only text that is not yet certain is kept, so that the work for each piece
does not grow with the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence

# A reader, which waits for more text at each yield.
Waiting = Generator[None, None, None]

# Limit of a name or an id; longer text is not a call.
MAX_WORD_LENGTH = 256

_SPACE = re.compile(r"[ \t\r\n]+")
_WORD = re.compile(r"[\w.:/-]+")


class Malformed(Exception):
    """The text is not a call, and counts as content."""


def partial_marker(text: str, markers: Sequence[str]) -> int:
    """Return the length of the longest suffix of ``text`` that is a proper prefix of one of ``markers``."""
    longest = 0
    for marker in markers:
        for length in range(min(len(marker) - 1, len(text)), longest, -1):
            if text.endswith(marker[:length]):
                longest = length
                break
    return longest


def first_marker(text: str, markers: Sequence[str], start: int = 0) -> tuple[int, str]:
    """Return the index in ``text`` of the first of ``markers``, and that marker; (-1, "") if there is none."""
    best, which = -1, ""
    for marker in markers:
        at = text.find(marker, start, best + len(marker) if best >= 0 else len(text))
        if at >= 0 and (best < 0 or at < best):
            best, which = at, marker
    return best, which


class Source:
    """Text that was read up to ``at``.

    Attributes:
        text: the unread rest of earlier pieces, and the last piece.
        at: index in ``text`` of the next unread character.
        closed: whether no more text follows.
        is_cut: whether the answer ended because it may not be longer.
        closers: texts that end a call. What is still open there is complete, unless the text was cut.
    """

    __slots__ = ("_marked", "_marked_from", "at", "closed", "closers", "is_cut", "text")

    def __init__(self, closers: Sequence[str] = ()) -> None:
        self.text = ""
        self.at = 0
        self.closed = self.is_cut = False
        self.closers = tuple(closers)
        self._marked: list[str] | None = None
        self._marked_from = 0

    def feed(self, text: str) -> None:
        """Add a piece, and drop the text that was read."""
        if self._marked is not None:
            self._marked.append(self.text[self._marked_from : self.at])
            self._marked_from = 0
        self.text = self.text[self.at :] + text
        self.at = 0

    def mark(self, before: str = "") -> None:
        """Keep the text that is read from now on, with ``before`` in front of it, for ``since_mark``."""
        self._marked = [before]
        self._marked_from = self.at

    def since_mark(self) -> str:
        """Return the text that was read since the mark, and remove the mark."""
        text = "".join(self._marked or ()) + self.text[self._marked_from : self.at]
        self._marked = None
        return text

    def more(self) -> Generator[None, None, bool]:
        """Wait for unread text; return False if none follows."""
        while self.at >= len(self.text):
            if self.closed:
                return False
            yield
        return True

    def peek(self) -> Generator[None, None, str]:
        """Return the next character without reading it; "" at the end."""
        if self.at >= len(self.text) and not (yield from self.more()):
            return ""
        return self.text[self.at]

    def take(self, literal: str) -> Generator[None, None, bool]:
        """Read ``literal`` if it comes next, and return whether it did."""
        while True:
            found = self.text[self.at : self.at + len(literal)]
            if found == literal:
                self.at += len(literal)
                return True
            if not literal.startswith(found) or self.closed:
                return False
            yield

    def sees(self, literals: Sequence[str]) -> Generator[None, None, str]:
        """Return which of ``literals`` comes next, without reading it; "" if none does."""
        while True:
            rest = self.text[self.at : self.at + max(map(len, literals), default=0)]
            for literal in literals:
                if rest.startswith(literal):
                    return literal
            if self.closed or not any(literal.startswith(rest) for literal in literals):
                return ""
            yield

    def ends(self) -> Generator[None, None, bool]:
        """Whether the call ends here: at one of the closers, or because the model ended its answer."""
        if (yield from self.more()):
            return bool((yield from self.sees(self.closers)))
        return not self.is_cut

    def unread(self, text: str) -> None:
        """Make ``text``, the last that was read, unread again. It must have been read since the mark, if any."""
        if self._marked is not None:
            marked = "".join(self._marked) + self.text[self._marked_from : self.at]
            self._marked = [marked.removesuffix(text)]
            self._marked_from = 0
        self.text = text + self.text[self.at :]
        self.at = 0

    def expect(self, literal: str) -> Waiting:
        """Read ``literal``.

        Raises:
            Malformed: other text comes next, or the text ends.
        """
        if not (yield from self.take(literal)):
            raise Malformed

    def space(self) -> Generator[None, None, str]:
        """Read white space, and return the character behind it without reading that; "" at the end."""
        while (yield from self.more()):
            if (run := _SPACE.match(self.text, self.at)) is None:
                return self.text[self.at]
            self.at = run.end()
        return ""

    def spaces(self) -> Generator[None, None, str]:
        """Read white space, and return it."""
        parts: list[str] = []
        while (yield from self.more()) and (run := _SPACE.match(self.text, self.at)) is not None:
            parts.append(run.group())
            self.at = run.end()
        return "".join(parts)

    def word(self) -> Generator[None, None, str]:
        """Read a name or an id: letters, digits and ``_ . : / -``.

        Raises:
            Malformed: there is none, or it is too long.
        """
        return (yield from self.run(_WORD, MAX_WORD_LENGTH))

    def run(self, pattern: re.Pattern[str], max_length: int) -> Generator[None, None, str]:
        """Read the longest run of ``pattern``, which must match each character independently of the others.

        Raises:
            Malformed: the run is empty, or longer than ``max_length``.
        """
        parts: list[str] = []
        left = max_length
        while (yield from self.more()) and (run := pattern.match(self.text, self.at)):
            if run.end() - self.at > left:
                # The position must not depend on how the text was split.
                self.at += left
                raise Malformed
            left -= run.end() - self.at
            parts.append(run.group())
            self.at = run.end()
        if not parts:
            raise Malformed
        return "".join(parts)

    def pour(self, markers: Sequence[str], sink: Callable[[str], object]) -> Generator[None, None, str]:
        """Pass all text before the first of ``markers`` to ``sink``, read the marker, and return it.

        Without a marker, pass all text, and return "".
        """
        marker = yield from self.pour_up_to(markers, sink)
        self.at += len(marker)
        return marker

    def pour_up_to(self, markers: Sequence[str], sink: Callable[[str], object]) -> Generator[None, None, str]:
        """Pass all text before the first of ``markers`` to ``sink``, and return the marker without reading it.

        Without a marker, pass all text, and return "".
        """
        while True:
            at, marker = first_marker(self.text, markers, self.at)
            if marker:
                if at > self.at:
                    sink(self.text[self.at : at])
                self.at = at
                return marker
            rest = self.text[self.at :]
            keep = 0 if self.closed else partial_marker(rest, markers)
            if len(rest) > keep:
                sink(rest[: len(rest) - keep])
                self.at = len(self.text) - keep
            if self.closed:
                return ""
            yield

    def until_or_end(self, marker: str) -> Generator[None, None, tuple[str, bool]]:
        """Read up to and including ``marker``, or all text; return the text before it, and whether it was there."""
        parts: list[str] = []
        found = yield from self.pour((marker,), parts.append)
        return "".join(parts), bool(found)

    def until(self, marker: str, max_length: int | None = None) -> Generator[None, None, str]:
        """Read up to and including ``marker``; return the text before it.

        Raises:
            Malformed: the text ends without it, or has more than ``max_length`` characters before it.
        """
        parts: list[str] = []
        left = max_length
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
