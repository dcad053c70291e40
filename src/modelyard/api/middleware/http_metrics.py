"""Metrics of HTTP requests: in flight and finished."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from modelyard.api.request_context import RequestContext
from modelyard.yard.stats.counters import WAIT_BOUNDS, Histogram

BODY_BOUNDS = (100.0, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8)

Labels = tuple[str, ...]
"""method, path and model; for a finished request also its status."""


class HttpMetrics:
    """Counts requests other than housekeeping. Paths are patterns of routes, models are ids of existing models."""

    def __init__(self) -> None:
        self.total: Counter[Labels] = Counter()
        self.duration_s: dict[Labels, Histogram] = {}
        self.body_bytes: dict[Labels, Histogram] = {}
        self._in_flight: set[RequestContext] = set()

    def begin(self, context: RequestContext) -> None:
        """Count a request that has started."""
        self._in_flight.add(context)

    def end(self, context: RequestContext) -> None:
        """Count a request that has ended."""
        self._in_flight.discard(context)
        if context.is_housekeeping:
            return
        labels = _labels(context)
        # 499, as in the access log: the client left before its answer began.
        with_status = (*labels, str(context.status or 499))
        self.total[with_status] += 1
        self.duration_s.setdefault(with_status, Histogram(WAIT_BOUNDS)).observe(context.ended - context.began)
        self.body_bytes.setdefault(labels, Histogram(BODY_BOUNDS)).observe(context.body_bytes)

    def in_flight(self) -> Iterator[tuple[Labels, int]]:
        """Yield how many requests are in flight; path and model of a request are unknown until its body was read."""
        yield from Counter(_labels(context) for context in self._in_flight if not context.is_housekeeping).items()


def _labels(context: RequestContext) -> Labels:
    return context.method, context.route, context.model
