"""Sections of calls: markers around all calls of an answer, and around each of them, as of DeepSeek and Kimi K2."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from modelyard.engine.formats.source import Malformed, Source


@dataclass(frozen=True, slots=True)
class Section:
    """The markers of a section.

    Attributes:
        open, close: around the section.
        call: before each call.
    """

    open: str
    close: str
    call: str

    def next_call(self, source: Source, opened_by: str, after: str) -> Generator[None, None, bool]:
        """Read up to the next call, and return whether there is one.

        Models sometimes write text between the markers of a section, which is not meant for the user. Behind a section
        that is not closed the text is content, and so is that behind a call without a section.

        Args:
            source: the text.
            opened_by: the marker that the calls began with.
            after: the marker that was read, or that of the last call.

        Raises:
            Malformed: the section has neither a call nor an end.
        """
        if self.close in (after, opened_by) or opened_by == self.call:
            return False
        parts: list[str] = []
        marker = yield from source.pour((self.call, self.close), parts.append)
        if not marker:
            if after == self.open:
                raise Malformed
            source.unread("".join(parts))
        return marker == self.call
