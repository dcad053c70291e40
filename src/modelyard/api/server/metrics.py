"""GET /metrics: all metrics in Prometheus's text format, collected when they are scraped."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate
from typing import Final

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from modelyard.agent.counters import ToolCounters
from modelyard.api.middleware.authorization import needs
from modelyard.api.middleware.http_metrics import HttpMetrics
from modelyard.api.server.metric_specs import METRICS, MetricSources, MetricSpec, NodeCounts, Samples
from modelyard.api.server.node_metrics import MergedMetrics, plain_families
from modelyard.api.services import Services
from modelyard.yard.stats.counters import Histogram
from modelyard.yard.stats.node_metrics import MetricFamily, NodeScrape
from modelyard.yard.yard import Yard

_OF_MEMORY: Final = frozenset(metric.name for metric in METRICS if "memory" in metric.name)
"""Metrics of the memory of a machine, which are of the nodes where there are any."""


class YardCollector(Collector):
    """Collects ``METRICS`` of one application; of a front those that are not the nodes'."""

    def __init__(self, yard: Yard, http: HttpMetrics, tools: ToolCounters, scrape: NodeScrape | None) -> None:
        self._yard, self._http, self._tools, self._scrape = yard, http, tools, scrape

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics. Runs on the event loop, which owns everything that they are read from."""
        snapshot, counts, nodes = self._yard.monitor.metrics(), None, self._yard.nodes
        if nodes is not None:
            # Models of the nodes, and memory, would count twice in a sum.
            ids = {model.id for model in self._yard.config.models if self._yard.factory.remotes.nodes_of(model)}
            snapshot = replace(snapshot, models=tuple(model for model in snapshot.models if model.model not in ids))
            missing = 0 if self._scrape is None else self._scrape.missing
            counts = NodeCounts(Counter(node.state for node in nodes.status()), missing)
        sources = MetricSources(self._http, snapshot, self._tools, counts)
        for metric in METRICS:
            is_left_out = nodes is not None and metric.name in _OF_MEMORY
            yield _family(metric, () if is_left_out else metric.read(sources))


def _family(metric: MetricSpec, samples: Samples) -> Metric:
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
        for labels, value in samples:
            assert isinstance(value, Histogram)
            bounds = [*map(str, value.bounds), "+Inf"]
            histogram.add_metric(labels, list(zip(bounds, accumulate(value.counts), strict=True)), value.sum)
        return histogram
    family = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    plain = family(metric.name, metric.meaning, labels=metric.labels)
    for labels, value in samples:
        assert not isinstance(value, Histogram)
        plain.add_metric(labels, value)
    return plain


def render_metrics() -> str:
    """Return a Markdown table of all metrics."""
    rows = [("Metric", "Kind", "Labels", "Meaning"), ("---",) * 4]
    rows += [(f"`{m.name}`", m.kind, ", ".join(f"`{label}`" for label in m.labels), m.meaning) for m in METRICS]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def metrics_registry(
    yard: Yard, http: HttpMetrics, tools: ToolCounters, scrape: NodeScrape | None = None
) -> CollectorRegistry:
    """Return the registry of one application; applications of one process do not share metrics.

    Args:
        yard, http, tools: what the metrics are read from.
        scrape: what the nodes of the yard answered; None: it has none.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(YardCollector(yard, http, tools, scrape))
    ProcessCollector(registry=registry)
    return registry


def node_families(yard: Yard) -> tuple[MetricFamily, ...]:
    """Return the metrics of a node, whose front speaks HTTP and runs tools in its place."""
    return plain_families(metrics_registry(yard, HttpMetrics(), ToolCounters()).collect())


router = APIRouter()


@router.get("/metrics", response_model=None)
@needs("read", all_models=True)
async def metrics(http: HttpRequest) -> Response:
    """All metrics, as text for Prometheus, or as OpenMetrics where the client prefers it."""
    encode, content_type = choose_encoder(http.headers.get("accept", ""))
    services, http_metrics = Services.of(http), http.app.state.http_metrics
    nodes = services.yard.nodes
    if nodes is None:
        registry = metrics_registry(services.yard, http_metrics, services.agent.counters)
        return Response(encode(registry), media_type=content_type)
    scrape = await nodes.metrics()
    registry = metrics_registry(services.yard, http_metrics, services.agent.counters, scrape)
    # The counters belong to the event loop. What was read of them can be written on another thread.
    merged = MergedMetrics(list(registry.collect()), scrape.families)
    return Response(await asyncio.to_thread(encode, merged), media_type=content_type)
