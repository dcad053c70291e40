"""Counters of what all models have done since the start.

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
from modelyard.yard.requests.model_names import ModelId
from modelyard.yard.requests.timings import RequestTimings
from modelyard.yard.residency.effects import FreeReason

GAP_BOUNDS = (0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0)
WAIT_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

RequestOutcome = Literal["stop", "length", "cancelled", "failed"]
UnloadReason = FreeReason | Literal["died"]
Ending = Finished | Answered | Cancelled | Failed


class Histogram:
    """Counts of values by size: how many are at most each of ``bounds``; the last count has all larger ones.

    Prometheus's own histogram is not used, because it takes one value at a time, under a lock.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value that occurred ``times`` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times


@dataclass(slots=True)
class ModelCounters:
    """Counters of one model.

    Attributes:
        requests: requests by how they ended.
        prompt_tokens, cached_tokens, completion_tokens: tokens of requests that are over; cached ones cost no prefill.
        prefix_hits: requests with a cached prefix.
        first_token_s: seconds from the arrival of a request to its first text.
        gap_s: seconds between two texts of a request.
        queue_s: seconds from the arrival of a request to its start in the engine, without the load.
        loads: loads by whether they succeeded.
        load_s: seconds that successful loads took.
        unloads: unloads by reason.
        preemptions: sequences that were preempted because the KV cache was full.
        pictures_encoded, pictures_reused: images, or tiles of them, that the projector encoded, and whose embeddings
            were reused.
        predicted_bytes: memory that its last load was expected to take; None before the first.
        deaths: deaths of its engines.
        retried_alone: how often a request that may have ended an engine was computed alone.
        blamed: requests that failed because they had ended their engine twice.
        engine_stats: the last statistics of its engine; None without an engine.
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
        """Record texts that arrived at ``now``.

        ``last_times`` has, for each, when the text before it arrived in the same answer; 0 for the first one.
        """
        # Most answers of an engine go on in the same step, so few of the times differ.
        for last, count in Counter(last_times).items():
            if last:
                self.gap_s.observe(now - last, count)

    def record_end(self, event: Ending, times: RequestTimings) -> None:
        """Record the end of a request."""
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
        """Record a successful load."""
        self.loads["ok"] += 1
        self.load_s.observe(took_s)

    def record_stats(self, stats: EngineStats) -> None:
        """Record the statistics of its engine."""
        self.engine_stats = stats
        self.preemptions += stats.preemptions
        self.pictures_encoded += stats.pictures_encoded
        self.pictures_reused += stats.pictures_reused


class Counters(dict[ModelId, ModelCounters]):
    """Counters of all models, which go on when the settings of a model change; they are created on first access."""

    def __missing__(self, model: ModelId) -> ModelCounters:
        counters = self[model] = ModelCounters()
        return counters
