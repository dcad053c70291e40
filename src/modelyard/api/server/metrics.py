"""GET /metrics: all that is counted, in Prometheus's words. Nothing is computed before somebody asks.

``METRICS`` is the list of what there is; docs/operations.md is written from it. Labels are bounded: models are ids of
the configuration, paths are patterns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from modelyard.api.middleware.authorization import needs
from modelyard.api.middleware.http_metrics import HttpMetrics
from modelyard.version import __version__
from modelyard.yard.stats.counters import Histogram
from modelyard.yard.stats.snapshot import MetricsSnapshot, ModelMetrics
from modelyard.yard.yard import Yard

Value = float | Histogram
Samples = Iterable[tuple[tuple[str, ...], Value]]
Read = Callable[[HttpMetrics, MetricsSnapshot], Samples]


@dataclass(frozen=True, slots=True)
class Described:
    """One metric: its name as it is exposed, what kind it is, its labels, its meaning, and where it is read."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str
    read: Read


def _of_models(read: Callable[[ModelMetrics], Value | None]) -> Read:
    """One value a model; None: it has none at the moment."""

    def samples(_http: HttpMetrics, census: MetricsSnapshot) -> Iterator[tuple[tuple[str, ...], Value]]:
        for model in census.models:
            if (value := read(model)) is not None:
                yield (model.model,), value

    return samples


def _by(read: Callable[[ModelMetrics], Mapping[Any, int]], names: tuple[str, ...]) -> Read:
    """One value a model and each of ``names``, also where it is 0: a rate needs a beginning."""

    def samples(_http: HttpMetrics, census: MetricsSnapshot) -> Iterator[tuple[tuple[str, ...], Value]]:
        for model in census.models:
            counts = read(model)
            yield from (((model.model, name), counts.get(name, 0)) for name in names)

    return samples


def _vital(name: str) -> Read:
    """What the engine of a model said of itself last, while there is one."""
    return _of_models(lambda m: None if m.counters.engine_stats is None else getattr(m.counters.engine_stats, name))


_HTTP, _MODEL = ("method", "path", "model"), ("model",)

METRICS: tuple[Described, ...] = (
    Described(
        "http_requests_total",
        "counter",
        (*_HTTP, "status"),
        "Requests that are over.",
        lambda http, _: http.total.items(),
    ),
    Described(
        "http_request_duration_seconds",
        "histogram",
        (*_HTTP, "status"),
        "From a request's head to the end of its answer.",
        lambda http, _: http.duration_s.items(),
    ),
    Described(
        "http_requests_in_flight", "gauge", _HTTP, "Requests that are being answered.", lambda http, _: http.in_flight()
    ),
    Described(
        "http_request_body_bytes", "histogram", _HTTP, "Bodies of requests.", lambda http, _: http.body_bytes.items()
    ),
    Described(
        "modelyard_requests_finished_total",
        "counter",
        ("model", "reason"),
        "Answers that are over, by how they ended.",
        _by(lambda m: m.counters.requests, ("stop", "length", "cancelled", "failed")),
    ),
    Described(
        "modelyard_requests_waiting",
        "gauge",
        _MODEL,
        "Requests that wait for the model: for memory, a load, or an unload to be over.",
        _of_models(lambda m: m.waiting),
    ),
    Described(
        "modelyard_requests_running",
        "gauge",
        _MODEL,
        "Requests that the model's engine has.",
        _of_models(lambda m: m.running),
    ),
    Described(
        "modelyard_sequences_running", "gauge", _MODEL, "Of those, how many are being computed.", _vital("running")
    ),
    Described(
        "modelyard_sequences_waiting",
        "gauge",
        _MODEL,
        "Of those, how many wait for a place in the batch.",
        _vital("waiting"),
    ),
    Described(
        "modelyard_queue_seconds",
        "histogram",
        _MODEL,
        "From a request's arrival until its prompt is computed, without the load of its model.",
        _of_models(lambda m: m.counters.queue_s),
    ),
    Described(
        "modelyard_time_to_first_token_seconds",
        "histogram",
        _MODEL,
        "From a request's arrival to its first text.",
        _of_models(lambda m: m.counters.first_token_s),
    ),
    Described(
        "modelyard_inter_token_latency_seconds",
        "histogram",
        _MODEL,
        "Gaps between two texts of an answer, pauses of all kinds included.",
        _of_models(lambda m: m.counters.gap_s),
    ),
    Described(
        "modelyard_prompt_tokens_total",
        "counter",
        _MODEL,
        "Tokens of prompts, of answers that are over.",
        _of_models(lambda m: m.counters.prompt_tokens),
    ),
    Described(
        "modelyard_completion_tokens_total",
        "counter",
        _MODEL,
        "Tokens of answers that are over.",
        _of_models(lambda m: m.counters.completion_tokens),
    ),
    Described(
        "modelyard_prefix_hit_tokens_total",
        "counter",
        _MODEL,
        "Tokens of prompts that were in the KV cache already, and were not computed.",
        _of_models(lambda m: m.counters.cached_tokens),
    ),
    Described(
        "modelyard_prefix_hits_total",
        "counter",
        _MODEL,
        "Requests of whose prompts a beginning was in the KV cache already.",
        _of_models(lambda m: m.counters.prefix_hits),
    ),
    Described(
        "modelyard_kv_cells",
        "gauge",
        _MODEL,
        "Tokens that the KV cache holds at most; absent while unloaded.",
        _vital("kv_cells"),
    ),
    Described(
        "modelyard_kv_cells_used",
        "gauge",
        _MODEL,
        "Tokens in the KV cache, of running requests and of kept prompts.",
        _vital("used_cells"),
    ),
    Described(
        "modelyard_preemptions_total",
        "counter",
        _MODEL,
        "Sequences that gave way because the KV cache was full, and were computed again.",
        _of_models(lambda m: m.counters.preemptions),
    ),
    Described(
        "modelyard_pictures_encoded_total",
        "counter",
        _MODEL,
        "Images, or tiles of them, that the model's projector encoded.",
        _of_models(lambda m: m.counters.pictures_encoded),
    ),
    Described(
        "modelyard_pictures_reused_total",
        "counter",
        _MODEL,
        "Images, or tiles of them, that the model was shown again from what its projector had encoded before.",
        _of_models(lambda m: m.counters.pictures_reused),
    ),
    Described(
        "modelyard_model_loaded", "gauge", _MODEL, "1 while the model serves.", _of_models(lambda m: m.is_loaded)
    ),
    Described(
        "modelyard_loads_total",
        "counter",
        ("model", "result"),
        "Loads that are over.",
        _by(lambda m: m.counters.loads, ("ok", "failed")),
    ),
    Described(
        "modelyard_load_seconds", "histogram", _MODEL, "Durations of loads.", _of_models(lambda m: m.counters.load_s)
    ),
    Described(
        "modelyard_evictions_total",
        "counter",
        ("model", "reason"),
        "Unloads: asked for, idle, to make room, over budget, retired by a new configuration, the server closes, "
        "a file of it was written over, or the engine died.",
        _by(lambda m: m.counters.unloads, ("asked", "idle", "room", "budget", "retired", "closing", "changed", "died")),
    ),
    Described(
        "modelyard_engine_deaths_total",
        "counter",
        _MODEL,
        "Engines of the model that died: while they served, loaded or were unloaded.",
        _of_models(lambda m: m.counters.deaths),
    ),
    Described(
        "modelyard_requests_retried_alone_total",
        "counter",
        _MODEL,
        "Times that a request, which an engine was computing when it died, was computed in steps of its own.",
        _of_models(lambda m: m.counters.retried_alone),
    ),
    Described(
        "modelyard_requests_blamed_total",
        "counter",
        _MODEL,
        "Requests that ended with an error because the model's engine died twice while it computed them.",
        _of_models(lambda m: m.counters.blamed),
    ),
    Described(
        "modelyard_model_isolated",
        "gauge",
        _MODEL,
        "1 where the model's engine, or its last one, runs in a process of its own.",
        _of_models(lambda m: m.is_isolated),
    ),
    Described(
        "modelyard_resident_bytes",
        "gauge",
        _MODEL,
        "Memory that the model takes, with weights that it shares with others.",
        _of_models(lambda m: m.resident_bytes),
    ),
    Described(
        "modelyard_predicted_bytes",
        "gauge",
        _MODEL,
        "Memory that its last load was expected to take.",
        _of_models(lambda m: m.counters.predicted_bytes),
    ),
    Described(
        "modelyard_memory_budget_bytes",
        "gauge",
        (),
        "Memory that all models may take together.",
        lambda _, census: [((), census.budget_bytes)],
    ),
    Described(
        "modelyard_memory_used_bytes",
        "gauge",
        (),
        "Memory that counts against the budget; shared weights once.",
        lambda _, census: [((), census.used_bytes)],
    ),
    Described(
        "modelyard_memory_kept_bytes",
        "gauge",
        (),
        "Of that, for what outlived unloads: prompts and suspended requests.",
        lambda _, census: [((), census.kept_bytes)],
    ),
    Described(
        "modelyard_build_info",
        "gauge",
        ("version",),
        "1; the label is the version.",
        lambda *_: [((__version__,), 1)],
    ),
)


class YardCollector(Collector):
    """Reads ``METRICS`` of one application."""

    def __init__(self, yard: Yard, http: HttpMetrics) -> None:
        self._yard, self._http = yard, http

    def collect(self) -> Iterator[Metric]:
        """All metrics, as they are now. On the event loop, as all that they are read from."""
        census = self._yard.metrics()
        for metric in METRICS:
            yield _family(metric, metric.read(self._http, census))


def _family(metric: Described, samples: Samples) -> Metric:
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
    """A Markdown table of all metrics."""
    rows = [("Metric", "Kind", "Labels", "Meaning"), ("---",) * 4]
    rows += [(f"`{m.name}`", m.kind, ", ".join(f"`{label}`" for label in m.labels), m.meaning) for m in METRICS]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def metrics_registry(yard: Yard, http: HttpMetrics) -> CollectorRegistry:
    """A registry for one application: two applications in one process count for themselves."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(YardCollector(yard, http))
    ProcessCollector(registry=registry)
    return registry


router = APIRouter()


@router.get("/metrics", response_model=None)
@needs("read", all_models=True)
async def metrics(http: HttpRequest) -> Response:
    """All metrics, as text for Prometheus, or as OpenMetrics where the client prefers it."""
    encode, content_type = choose_encoder(http.headers.get("accept", ""))
    return Response(encode(http.app.state.metrics_registry), media_type=content_type)
