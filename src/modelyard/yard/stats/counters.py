"""What all models have done since the start, counted where it happens.

Hot path: ``ModelCounters.record_tokens`` runs once a step. With the times that are kept for it, it takes 0.2 µs a text.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from modelyard.protocol.events import Answered, Cancelled, Embedded, Failed, Finished, Ranked, Tokenized
from modelyard.protocol.values import EngineStats
from modelyard.yard.requests.timings import RequestTimings
from modelyard.yard.residency.events import FreeReason

GAP_BOUNDS = (0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0)
WAIT_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

RequestOutcome = Literal["stop", "length", "cancelled", "failed"]
UnloadReason = FreeReason | Literal["died"]
Ending = Finished | Answered | Cancelled | Failed


class Histogram:
    """Values by size: how many are at most each of ``bounds``, and the last count has all others.

    Of our own, because Prometheus's takes one value at a time, under a lock.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """One more value, or several that are the same."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times


@dataclass(slots=True)
class ModelCounters:
    """What one model has done.

    Attributes:
        requests: by how they ended.
        prompt_tokens, cached_tokens, completion_tokens: of requests that are over; cached ones cost no prefill.
        prefix_hits: requests of which a part was cached.
        first_token_s, gap_s, queue_s: until the first text, between two, and until the engine began.
        loads: by whether they succeeded; load_s is what those took that did.
        unloads: by reason.
        preemptions: sequences that gave way because the KV cache was full.
        pictures_encoded, pictures_reused: images, or tiles of them, that its projector encoded, and that were shown
            again without that.
        predicted_bytes: that its load was expected to take.
        deaths: of its engines, whatever they did.
        retried_alone: times that a request which may have ended an engine was computed alone.
        blamed: requests that ended with an error because they had ended their engine twice.
        vitals: how its engine was last; None: it has none.
    """

    requests: Counter[RequestOutcome] = field(default_factory=Counter)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    prefix_hits: int = 0
    first_token_s: Histogram = field(default_factory=lambda: Histogram(WAIT_BOUNDS))
    gap_s: Histogram = field(default_factory=lambda: Histogram(GAP_BOUNDS))
    queue_s: Histogram = field(default_factory=lambda: Histogram(WAIT_BOUNDS))
    loads: Counter[Literal["ok", "failed"]] = field(default_factory=Counter)
    load_s: Histogram = field(default_factory=lambda: Histogram(WAIT_BOUNDS))
    unloads: Counter[UnloadReason] = field(default_factory=Counter)
    preemptions: int = 0
    pictures_encoded: int = 0
    pictures_reused: int = 0
    predicted_bytes: int | None = None
    deaths: int = 0
    retried_alone: int = 0
    blamed: int = 0
    engine_stats: EngineStats | None = None

    def record_tokens(self, last_times: Sequence[float], now: float) -> None:
        """Texts have arrived at ``now``; the last ones before them in the same answers at ``last_times``, 0: none."""
        # All answers of an engine mostly go on together: few of the times are different.
        for last, count in Counter(last_times).items():
            if last:
                self.gap_s.observe(now - last, count)

    def record_end(self, event: Ending, times: RequestTimings) -> None:
        """A request is over."""
        usage = None if isinstance(event, Failed) else event.usage
        match event:
            case Finished(_, reason):
                self.requests[reason] += 1
            case Embedded() | Ranked() | Tokenized():
                self.requests["stop"] += 1
            case Cancelled():
                self.requests["cancelled"] += 1
            case Failed():
                self.requests["failed"] += 1
        if usage is not None:
            self.prompt_tokens += usage.prompt_tokens
            self.cached_tokens += usage.cached_tokens
            self.completion_tokens += usage.completion_tokens
            self.prefix_hits += usage.cached_tokens > 0
        if times.queue_s is not None:
            self.queue_s.observe(times.queue_s)
        if times.first_token_s is not None:
            self.first_token_s.observe(times.first_token_s)

    def record_load(self, took_s: float) -> None:
        """It was loaded."""
        self.loads["ok"] += 1
        self.load_s.observe(took_s)

    def record_stats(self, vitals: EngineStats) -> None:
        """Its engine says how it is."""
        self.engine_stats = vitals
        self.preemptions += vitals.preemptions
        self.pictures_encoded += vitals.pictures_encoded
        self.pictures_reused += vitals.pictures_reused


class Counters(dict[str, ModelCounters]):
    """All models, by the names that people know; one is there as soon as it is asked for."""

    def __missing__(self, model: str) -> ModelCounters:
        tally = self[model] = ModelCounters()
        return tally
