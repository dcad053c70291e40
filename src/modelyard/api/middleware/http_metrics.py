"""HTTP requests in numbers: those that are answered, and those that were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from modelyard.api.request_context import RequestContext
from modelyard.yard.stats.counters import WAIT_BOUNDS, Histogram

BODY_BOUNDS = (100.0, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8)

Labels = tuple[str, ...]
"""method, path, model, and of a request that is over its status."""


class HttpMetrics:
    """Requests but those of housekeeping. Their paths are patterns of routes, their models ids that there are."""

    def __init__(self) -> None:
        self.total: Counter[Labels] = Counter()
        self.duration_s: dict[Labels, Histogram] = {}
        self.body_bytes: dict[Labels, Histogram] = {}
        self._answered: set[RequestContext] = set()

    def begin(self, visit: RequestContext) -> None:
        """A request has come."""
        self._answered.add(visit)

    def end(self, visit: RequestContext) -> None:
        """A request is over."""
        self._answered.discard(visit)
        if visit.is_housekeeping:
            return
        labels = _labels(visit)
        # As in the log: 499 is a client that left before its answer began.
        with_status = (*labels, str(visit.status or 499))
        self.total[with_status] += 1
        self.duration_s.setdefault(with_status, Histogram(WAIT_BOUNDS)).observe(visit.ended - visit.began)
        self.body_bytes.setdefault(labels, Histogram(BODY_BOUNDS)).observe(visit.body_bytes)

    def in_flight(self) -> Iterator[tuple[Labels, int]]:
        """How many are being answered; of one that was not read yet, path and model are not known."""
        yield from Counter(_labels(visit) for visit in self._answered if not visit.is_housekeeping).items()


def _labels(visit: RequestContext) -> Labels:
    return visit.method, visit.route, visit.model
