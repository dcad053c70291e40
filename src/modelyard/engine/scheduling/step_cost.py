"""Estimates how long a step takes by its number of tokens, from the steps that were computed.

The time is not proportional to the tokens: memory bandwidth bounds a step of one token, arithmetic a step of many, and
where one becomes the other depends on the machine, the weights and the length of the context. So it is measured.
"""

from __future__ import annotations

# Weight of the newest step in the moving average.
_NEWEST = 0.2

# A step that took longer than this multiple of its estimate was disturbed by others, and counts as this multiple.
_OUTLIER = 3.0


class StepCost:
    """Estimates by powers of two, interpolated linearly between them."""

    def __init__(self) -> None:
        # Mean number of tokens and mean time in seconds, by the bit length of the number of tokens.
        self._points: dict[int, tuple[float, float]] = {}

    def observe(self, tokens: int, seconds: float) -> None:
        """Record that a step of ``tokens`` took ``seconds``."""
        bits = (tokens - 1).bit_length()
        known = self._points.get(bits)
        if known is None:
            self._points[bits] = tokens, seconds
            return
        seconds = min(seconds, known[1] * _OUTLIER * max(1.0, tokens / known[0]))
        self._points[bits] = known[0] + _NEWEST * (tokens - known[0]), known[1] + _NEWEST * (seconds - known[1])

    def seconds(self, tokens: int) -> float:
        """Return the estimated time of a step of ``tokens``; 0 before any step was observed.

        Beyond the largest observed step the time is proportional to it; below the smallest one too.
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

    def max_tokens(self, beside: int, limit_s: float, limit: int) -> int:
        """Return how many tokens, at most ``limit``, fit beside ``beside`` others in a step of at most ``limit_s``.

        Before any step was observed: ``limit``.
        """
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            if self.seconds(beside + middle) <= limit_s:
                low = middle
            else:
                high = middle - 1
        return low
