"""Stop strings: the text ends before the first of them, even if it is split over many tokens.

The first is the one that is complete first, and the longest of several that end together. So the cut depends on the
text alone, not on how it was split: a stream cannot wait for a longer stop string around a complete one.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopFilter:
    """Releases text up to the first stop string, and holds back only what could still become one.

    Args:
        stops: the stop strings.
        includes: whether a stop string that ends the text is part of it.
    """

    __slots__ = ("_held", "_includes", "_stops", "stopped_by")

    def __init__(self, stops: Sequence[str], *, includes: bool = False) -> None:
        self._stops, self._includes = tuple(stops), includes
        self._held = ""
        self.stopped_by: str | None = None

    def push(self, text: str) -> str:
        """Return the text that is certain not to belong to a stop string; after a match, the text up to its border."""
        if not self._stops:
            return text
        held = self._held + text
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := held.find(stop)) >= 0]
        if found:
            end, start, self.stopped_by = min(found)
            self._held = ""
            return held[: end if self._includes else start]
        keep = self._possible_start(held)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def flush(self) -> str:
        """Return the text that is held back, at the end of a sequence: no stop string can be completed any more."""
        held, self._held = self._held, ""
        return held

    def _possible_start(self, text: str) -> int:
        """Return the length of the longest suffix of ``text`` that begins a stop string."""
        longest = 0
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(text)), longest, -1):
                if text.endswith(stop[:length]):
                    longest = length
                    break
        return longest
