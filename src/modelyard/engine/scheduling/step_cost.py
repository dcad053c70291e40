"""How long a step of so many tokens takes, learned from the steps that were computed.

A step is not as long as it has tokens: with one token memory bandwidth decides, with many arithmetic does, and where
one becomes the other depends on the machine, the weights and the length of the context. So it is measured.
"""

from __future__ import annotations

# Part of an estimate that the newest step replaces.
_NEWEST = 0.2

# A step that took so many times what was expected was disturbed by others, and counts as so long at most.
_OUTLIER = 3.0


class StepCost:
    """Estimates for powers of two, and straight lines between them."""

    def __init__(self) -> None:
        # By the number of bits of a step's tokens: their mean number, and the mean time in seconds.
        self._points: dict[int, tuple[float, float]] = {}

    def observe(self, tokens: int, seconds: float) -> None:
        """A step of ``tokens`` took ``seconds``."""
        bits = (tokens - 1).bit_length()
        known = self._points.get(bits)
        if known is None:
            self._points[bits] = tokens, seconds
            return
        seconds = min(seconds, known[1] * _OUTLIER * max(1.0, tokens / known[0]))
        self._points[bits] = known[0] + _NEWEST * (tokens - known[0]), known[1] + _NEWEST * (seconds - known[1])

    def seconds(self, tokens: int) -> float:
        """How long a step of ``tokens`` would take; 0 while nothing is known.

        Beyond the largest step that is known it is in proportion to it; below the smallest too.
        """
        below, above = (0.0, 0.0), None
        for point in self._points.values():
            if below[0] < point[0] <= tokens:
                below = point
            elif point[0] > tokens and (above is None or point[0] < above[0]):
                above = point
        if above is None:
            return below[1] * tokens / below[0] if below[0] else 0.0
        part = (tokens - below[0]) / (above[0] - below[0])
        return below[1] + part * max(0.0, above[1] - below[1])

    def most_tokens(self, beside: int, limit_s: float, most: int) -> int:
        """How many tokens, at most ``most``, can join ``beside`` others in a step that takes no more than ``limit_s``.

        While nothing is known: ``most``.
        """
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            if self.seconds(beside + middle) <= limit_s:
                low = middle
            else:
                high = middle - 1
        return low
