"""Estimates how long a step takes by its number of tokens, from the steps that were computed.

The time is not proportional to the tokens: memory bandwidth bounds a step of one token, arithmetic a step of many, and
where one becomes the other depends on the machine, the weights and the length of the context. So it is measured.
"""

from __future__ import annotations

# Weight of the newest step in the moving average.
_NEWEST = 0.2

# Cost of another token in steps of one token, as it was measured on two cores (docs/performance.md). It limits the
# estimate for a size that was not observed yet: the first step of an engine, which touches its weights for the first
# time, would else make draft tokens look so expensive that none were ever tried.
_FIRST_TOKEN_COST = 0.35

# A relative cost is held until the measured one differs from it by this factor.
_HELD = 1.2

# A step that took longer than this multiple of its estimate was disturbed by others, and counts as this multiple.
_OUTLIER = 3.0


class StepCost:
    """Estimates by powers of two, interpolated linearly between them."""

    def __init__(self) -> None:
        # Mean number of tokens and mean time in seconds, by the bit length of the number of tokens.
        self._points: dict[int, tuple[float, float]] = {}
        # Number of steps observed, and the relative cost that is held, also by bit length.
        self._counts: dict[int, int] = {}
        self._relative: dict[int, float] = {}

    def observe(self, tokens: int, seconds: float) -> None:
        """Record that a step of ``tokens`` took ``seconds``."""
        bits = (tokens - 1).bit_length()
        known = self._points.get(bits)
        count = self._counts[bits] = self._counts.get(bits, 0) + 1
        if known is None:
            self._points[bits] = tokens, seconds
            return
        seconds = min(seconds, known[1] * _OUTLIER * max(1.0, tokens / known[0]))
        # The first steps of an engine are slow, since they touch its memory for the first time.
        newest = max(_NEWEST, 1 / count)
        self._points[bits] = known[0] + newest * (tokens - known[0]), known[1] + newest * (seconds - known[1])

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

    def relative(self, tokens: int) -> float:
        """Return the time of a step of ``tokens`` in steps of one token; ``tokens`` before any step was observed.

        It changes only where the measured cost has changed by a fifth: what is decided by it, such as the number of
        draft tokens, is decided in the same way for the same request, though each step takes a little more or less.
        """
        bits = (tokens - 1).bit_length()
        above = self._held(bits)
        if tokens == 1 << bits:
            return above
        below, start = self._held(bits - 1), 1 << (bits - 1)
        return below + (tokens - start) / start * (above - below)

    def _held(self, bits: int) -> float:
        """Return the relative cost of a step of two to the power of ``bits`` tokens."""
        if not bits:
            return 1.0
        one = self.seconds(1)
        if not one:
            return float(1 << bits)
        measured = max(1.0, self.seconds(1 << bits) / one)
        if bits not in self._points:
            measured = min(measured, 1 + _FIRST_TOKEN_COST * ((1 << bits) - 1))
        held = self._relative.get(bits)
        if held is None or not held / _HELD <= measured <= held * _HELD:
            self._relative[bits] = held = measured
        return held

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
