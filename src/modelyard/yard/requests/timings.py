"""When what happened to a request, and how long each part of its way took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class RequestTimings:
    """Moments of one request, in seconds of ``time.monotonic``; 0 where it did not come so far.

    Attributes:
        arrived: it stood in the line of its model.
        granted: its engine has it. Of a request that was suspended, for the first time.
        load_s: of the time before, seconds that its model was loading.
        begun: its engine computes its prompt.
        first, last: its first and its last text arrived, so far.
        ended: its last event arrived.
    """

    arrived: float = 0.0
    granted: float = 0.0
    load_s: float = 0.0
    started: float = 0.0
    first: float = 0.0
    last: float = 0.0
    ended: float = 0.0

    def grant(self, now: float, load_began: float, loaded_at: float) -> None:
        """Its engine has it, whose last load took from ``load_began`` to ``loaded_at``."""
        if not self.granted:
            self.granted = now
            self.load_s = max(0.0, min(now, loaded_at) - max(self.arrived, load_began))

    @property
    def queue_s(self) -> float | None:
        """Waiting for memory and for a place in the engine, without the load; None while it waits for its model."""
        return (self.started or self.granted) - self.arrived - self.load_s if self.granted else None

    @property
    def prefill_s(self) -> float | None:
        """From there to the first text."""
        return self.first - (self.started or self.granted) if self.first else None

    @property
    def decode_s(self) -> float | None:
        """From the first text to the end."""
        return self.ended - self.first if self.ended and self.first else None

    @property
    def first_token_s(self) -> float | None:
        """From the arrival to the first text."""
        return self.first - self.arrived if self.first else None
