"""The times at which a request reached each of its stages, and the durations between them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class RequestTimings:
    """Times of one request, in seconds of ``time.monotonic``; 0 for stages that it has not reached.

    Attributes:
        arrived: when it was queued.
        granted: when it was first sent to its engine.
        load_s: seconds of the time before ``granted`` in which its model was loading.
        started: when its engine began to compute its prompt.
        first, last: when its first and its latest text arrived.
        ended: when its last event arrived.
    """

    arrived: float = 0.0
    granted: float = 0.0
    load_s: float = 0.0
    started: float = 0.0
    first: float = 0.0
    last: float = 0.0
    ended: float = 0.0

    def grant(self, now: float, load_began: float, loaded_at: float) -> None:
        """Record that it is sent to its engine, whose load took from ``load_began`` to ``loaded_at``."""
        if not self.granted:
            self.granted = now
            self.load_s = max(0.0, min(now, loaded_at) - max(self.arrived, load_began))

    @property
    def queue_s(self) -> float | None:
        """Seconds of waiting for memory and in the engine's queue, without the load; None while not granted."""
        return (self.started or self.granted) - self.arrived - self.load_s if self.granted else None

    @property
    def prefill_s(self) -> float | None:
        """Seconds from the start in the engine to the first text; None before it."""
        return self.first - (self.started or self.granted) if self.first else None

    @property
    def decode_s(self) -> float | None:
        """Seconds from the first text to the end; None before it."""
        return self.ended - self.first if self.ended and self.first else None

    @property
    def first_token_s(self) -> float | None:
        """Seconds from the arrival to the first text; None before it."""
        return self.first - self.arrived if self.first else None
