"""The times at which a request reached each of its stages, and the durations between them.

All dialects report their durations from here: OpenAI's ``Server-Timing``, llama.cpp's ``timings``, Ollama's durations.
"""

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
        first, last: when the first and the latest tokens of its answer arrived.
        ended: when its last event arrived.
        paused_at: since when it is suspended; 0 while it is not.
        paused_s: seconds for which its answer was suspended after it had begun.
    """

    arrived: float = 0.0
    granted: float = 0.0
    load_s: float = 0.0
    started: float = 0.0
    first: float = 0.0
    last: float = 0.0
    ended: float = 0.0
    paused_at: float = 0.0
    paused_s: float = 0.0

    def grant(self, now: float, load_began: float, loaded_at: float) -> None:
        """Record that it is sent to its engine, whose load took from ``load_began`` to ``loaded_at``."""
        self._end_pause(now)
        if not self.granted:
            self.granted = now
            self.load_s = max(0.0, min(now, loaded_at) - max(self.arrived, load_began))

    def start(self, now: float) -> None:
        """Record that its engine begins to compute it. An answer that goes on after a pause began earlier."""
        if not self.first:
            self.started = now

    def pause(self, now: float) -> None:
        """Record that it leaves its engine, unfinished."""
        if not self.paused_at:
            self.paused_at = now

    def end(self, now: float) -> None:
        """Record its last event."""
        self._end_pause(now)
        self.ended = now

    def _end_pause(self, now: float) -> None:
        if not self.paused_at:
            return
        if self.first:
            self.paused_s += now - self.paused_at
        else:
            # An engine does not report the start of a prompt again that goes on where it was suspended.
            self.started = now
        self.paused_at = 0.0

    @property
    def queue_s(self) -> float | None:
        """Seconds of waiting for memory and in the engine's queue, without the load; None while not granted."""
        return (self.started or self.granted) - self.arrived - self.load_s if self.granted else None

    @property
    def waited_s(self) -> float:
        """Seconds in which it was not computed: in queues, for loads of its model, and suspended."""
        until = self.started or self.granted or self.ended
        return max(0.0, until - self.arrived) + self.paused_s

    @property
    def prefill_s(self) -> float | None:
        """Seconds from the start in the engine to the first token, or to the end of an empty answer; None before it."""
        until = self.first or self.ended
        return max(0.0, until - (self.started or self.granted)) if until and self.granted else None

    @property
    def decode_s(self) -> float | None:
        """Seconds from the first token to the last that has arrived, or to the end, without pauses; None before it."""
        return max(0.0, (self.ended or self.last) - self.first - self.paused_s) if self.first else None

    @property
    def first_token_s(self) -> float | None:
        """Seconds from the arrival to the first text; None before it."""
        return self.first - self.arrived if self.first else None
