"""The metrics that there are, and what each is read from.

``METRICS`` lists them, and the table in docs/operations.md is generated from it. Labels are bounded: models are ids
of the configuration, paths are patterns of routes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from modelyard.agent.counters import OUTCOMES, ToolCounters
from modelyard.api.middleware.http_metrics import HttpMetrics
from modelyard.version import __version__
from modelyard.yard.stats.counters import Histogram
from modelyard.yard.stats.device_memory import DeviceUse
from modelyard.yard.stats.nodes import NodeState
from modelyard.yard.stats.snapshot import MetricsSnapshot, ModelMetrics

Value = float | Histogram
Samples = Iterable[tuple[tuple[str, ...], Value]]


@dataclass(frozen=True, slots=True)
class NodeCounts:
    """The nodes of a cluster: how many are in each state, and how many did not answer a scrape."""

    states: Counter[str]
    missing: int


@dataclass(frozen=True, slots=True)
class MetricSources:
    """What the samples of one scrape are read from."""

    http: HttpMetrics
    snapshot: MetricsSnapshot
    tools: ToolCounters
    nodes: NodeCounts | None


Read = Callable[[MetricSources], Samples]


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric: its exposed name, its type, its labels, its help text, and the function that reads its samples."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str
    read: Read


def _per_model(read: Callable[[ModelMetrics], Value | None]) -> Read:
    """Return a reader of one sample for each model; None: the model has no value at the moment."""

    def samples(sources: MetricSources) -> Iterator[tuple[tuple[str, ...], Value]]:
        for model in sources.snapshot.models:
            if (value := read(model)) is not None:
                yield (model.model,), value

    return samples


def _per_name(read: Callable[[ModelMetrics], Mapping[Any, int]], names: tuple[str, ...]) -> Read:
    """Return a reader of one sample for each model and name; zeros are included, as a rate needs a first sample."""

    def samples(sources: MetricSources) -> Iterator[tuple[tuple[str, ...], Value]]:
        for model in sources.snapshot.models:
            counts = read(model)
            yield from (((model.model, name), counts.get(name, 0)) for name in names)

    return samples


def _per_device(read: Callable[[DeviceUse], int]) -> Read:
    """Return a reader of one sample for each device."""
    return lambda sources: [((name,), read(use)) for name, use in sources.snapshot.devices.items()]


def _model_devices(sources: MetricSources) -> Samples:
    """Return the bytes that each model takes of each device; zeros are included, so that no sample goes stale."""
    for model in sources.snapshot.models:
        yield from (((model.model, name), model.device_bytes.get(name, 0)) for name in sources.snapshot.devices)


def _engine(name: str) -> Read:
    """Return a reader of the last statistics of each model's engine, while it has one."""
    return _per_model(lambda m: None if m.counters.engine_stats is None else getattr(m.counters.engine_stats, name))


def _tool_calls(sources: MetricSources) -> Iterator[tuple[tuple[str, ...], Value]]:
    """Return a sample for each tool that was called and each outcome; zeros are included, as in ``_per_name``."""
    for name in sources.tools.duration_s:
        yield from (((*name, outcome), sources.tools.calls[name, outcome]) for outcome in OUTCOMES)


_HTTP, _MODEL, _TOOL = ("method", "path", "model"), ("model",), ("server", "tool")

METRICS: tuple[MetricSpec, ...] = (
    MetricSpec(
        "http_requests_total",
        "counter",
        (*_HTTP, "status"),
        "Requests that have ended.",
        lambda sources: sources.http.total.items(),
    ),
    MetricSpec(
        "http_request_duration_seconds",
        "histogram",
        (*_HTTP, "status"),
        "From a request's head to the end of its answer.",
        lambda sources: sources.http.duration_s.items(),
    ),
    MetricSpec(
        "http_requests_in_flight",
        "gauge",
        _HTTP,
        "Requests that are being answered.",
        lambda sources: sources.http.in_flight(),
    ),
    MetricSpec(
        "http_request_body_bytes",
        "histogram",
        _HTTP,
        "Bodies of requests.",
        lambda sources: sources.http.body_bytes.items(),
    ),
    MetricSpec(
        "modelyard_requests_finished_total",
        "counter",
        ("model", "reason"),
        "Answers that have ended, by reason.",
        _per_name(lambda m: m.counters.requests, ("stop", "length", "cancelled", "failed")),
    ),
    MetricSpec(
        "modelyard_requests_waiting",
        "gauge",
        _MODEL,
        "Requests that wait for the model: for memory, for a load, or for the end of an unload.",
        _per_model(lambda m: m.waiting),
    ),
    MetricSpec(
        "modelyard_requests_running",
        "gauge",
        _MODEL,
        "Requests that the model's engine has.",
        _per_model(lambda m: m.running),
    ),
    MetricSpec(
        "modelyard_sequences_running",
        "gauge",
        _MODEL,
        "Sequences in the model's engine that are being computed.",
        _engine("running"),
    ),
    MetricSpec(
        "modelyard_sequences_waiting",
        "gauge",
        _MODEL,
        "Sequences in the model's engine that wait for a place in the batch.",
        _engine("waiting"),
    ),
    MetricSpec(
        "modelyard_queue_seconds",
        "histogram",
        _MODEL,
        "From a request's arrival until its prompt is computed, without the load of its model.",
        _per_model(lambda m: m.counters.queue_s),
    ),
    MetricSpec(
        "modelyard_time_to_first_token_seconds",
        "histogram",
        _MODEL,
        "From a request's arrival to its first text.",
        _per_model(lambda m: m.counters.first_token_s),
    ),
    MetricSpec(
        "modelyard_inter_token_latency_seconds",
        "histogram",
        _MODEL,
        "Time between two pieces of an answer's text, pauses included.",
        _per_model(lambda m: m.counters.gap_s),
    ),
    MetricSpec(
        "modelyard_prompt_tokens_total",
        "counter",
        _MODEL,
        "Prompt tokens of answers that have ended.",
        _per_model(lambda m: m.counters.prompt_tokens),
    ),
    MetricSpec(
        "modelyard_completion_tokens_total",
        "counter",
        _MODEL,
        "Generated tokens of answers that have ended.",
        _per_model(lambda m: m.counters.completion_tokens),
    ),
    MetricSpec(
        "modelyard_prefix_hit_tokens_total",
        "counter",
        _MODEL,
        "Prompt tokens that were in the KV cache and were not computed again.",
        _per_model(lambda m: m.counters.cached_tokens),
    ),
    MetricSpec(
        "modelyard_prefix_hits_total",
        "counter",
        _MODEL,
        "Requests whose prompt began with a prefix in the KV cache.",
        _per_model(lambda m: m.counters.prefix_hits),
    ),
    MetricSpec(
        "modelyard_kv_cells",
        "gauge",
        _MODEL,
        "Capacity of the KV cache in tokens, as it is allocated now; absent while the model is unloaded.",
        _engine("kv_cells"),
    ),
    MetricSpec(
        "modelyard_kv_cells_used",
        "gauge",
        _MODEL,
        "Tokens in the KV cache, of running requests and of cached prompts.",
        _engine("used_cells"),
    ),
    MetricSpec(
        "modelyard_preemptions_total",
        "counter",
        _MODEL,
        "Sequences that were preempted because the KV cache was full, and computed again.",
        _per_model(lambda m: m.counters.preemptions),
    ),
    MetricSpec(
        "modelyard_pictures_encoded_total",
        "counter",
        _MODEL,
        "Images, or tiles of them, that the model's projector encoded.",
        _per_model(lambda m: m.counters.pictures_encoded),
    ),
    MetricSpec(
        "modelyard_pictures_reused_total",
        "counter",
        _MODEL,
        "Images, or tiles of them, whose earlier encoding was used again.",
        _per_model(lambda m: m.counters.pictures_reused),
    ),
    MetricSpec(
        "modelyard_model_loaded", "gauge", _MODEL, "1 while the model is loaded.", _per_model(lambda m: m.is_loaded)
    ),
    MetricSpec(
        "modelyard_loads_total",
        "counter",
        ("model", "result"),
        "Loads that have ended, by result.",
        _per_name(lambda m: m.counters.loads, ("ok", "failed")),
    ),
    MetricSpec(
        "modelyard_load_seconds", "histogram", _MODEL, "Durations of loads.", _per_model(lambda m: m.counters.load_s)
    ),
    MetricSpec(
        "modelyard_evictions_total",
        "counter",
        ("model", "reason"),
        "Unloads: asked for, idle, to make room, over budget, to move to a faster placement, retired by a new "
        "configuration, the server closes, a file of it was written over, or the engine died.",
        _per_name(
            lambda m: m.counters.unloads,
            ("asked", "idle", "room", "budget", "move", "retired", "closing", "changed", "died"),
        ),
    ),
    MetricSpec(
        "modelyard_engine_deaths_total",
        "counter",
        _MODEL,
        "Engines of the model that died: while they served, loaded or were unloaded.",
        _per_model(lambda m: m.counters.deaths),
    ),
    MetricSpec(
        "modelyard_requests_retried_alone_total",
        "counter",
        _MODEL,
        "Retries of requests alone in a step, because an engine died while it computed them.",
        _per_model(lambda m: m.counters.retried_alone),
    ),
    MetricSpec(
        "modelyard_requests_blamed_total",
        "counter",
        _MODEL,
        "Requests that ended with an error because the model's engine died twice while it computed them.",
        _per_model(lambda m: m.counters.blamed),
    ),
    MetricSpec(
        "modelyard_model_isolated",
        "gauge",
        _MODEL,
        "1 where the model's engine, or its last one, runs in a process of its own.",
        _per_model(lambda m: m.is_isolated),
    ),
    MetricSpec(
        "modelyard_resident_bytes",
        "gauge",
        _MODEL,
        "Memory that the model takes of the host and of devices, including weights that it shares with other models.",
        _per_model(lambda m: m.resident_bytes),
    ),
    MetricSpec(
        "modelyard_model_device_bytes",
        "gauge",
        ("model", "device"),
        "Memory that the model takes of the device, including weights that it shares with other models.",
        _model_devices,
    ),
    MetricSpec(
        "modelyard_predicted_bytes",
        "gauge",
        _MODEL,
        "Estimate of the memory that the model's last load takes.",
        _per_model(lambda m: m.counters.predicted_bytes),
    ),
    MetricSpec(
        "modelyard_memory_budget_bytes",
        "gauge",
        (),
        "Memory budget of all models together, of the host.",
        lambda sources: [((), sources.snapshot.budget_bytes)],
    ),
    MetricSpec(
        "modelyard_memory_used_bytes",
        "gauge",
        (),
        "Memory of the host that counts against the budget; shared weights once.",
        lambda sources: [((), sources.snapshot.used_bytes)],
    ),
    MetricSpec(
        "modelyard_memory_kept_bytes",
        "gauge",
        (),
        "Part of the used memory that outlives unloads: cached prompts and suspended requests.",
        lambda sources: [((), sources.snapshot.kept_bytes)],
    ),
    MetricSpec(
        "modelyard_device_memory_budget_bytes",
        "gauge",
        ("device",),
        "Memory of the device that all models may take together; 0 for a device that is gone.",
        _per_device(lambda use: use.budget_bytes),
    ),
    MetricSpec(
        "modelyard_device_memory_used_bytes",
        "gauge",
        ("device",),
        "Memory of the device that models take; shared weights once.",
        _per_device(lambda use: use.used_bytes),
    ),
    MetricSpec(
        "modelyard_tool_calls_total",
        "counter",
        (*_TOOL, "outcome"),
        "Calls of tools that the server runs, by outcome: ok, error, cancelled, or not_run where a call was denied or "
        "malformed.",
        _tool_calls,
    ),
    MetricSpec(
        "modelyard_tool_seconds",
        "histogram",
        _TOOL,
        "Durations of calls of tools, without those that were not run.",
        lambda sources: sources.tools.duration_s.items(),
    ),
    MetricSpec(
        "modelyard_nodes",
        "gauge",
        ("state",),
        "On a cluster: connected nodes by state: up, draining, or silent where one has reported nothing for seconds.",
        lambda sources: () if sources.nodes is None else [((s,), sources.nodes.states[s]) for s in get_args(NodeState)],
    ),
    MetricSpec(
        "modelyard_nodes_missing",
        "gauge",
        (),
        "On a cluster: connected nodes that did not answer this scrape in time, and whose metrics are left out.",
        lambda sources: () if sources.nodes is None else [((), sources.nodes.missing)],
    ),
    MetricSpec(
        "modelyard_build_info",
        "gauge",
        ("version",),
        "1; the label is the version.",
        lambda _: [((__version__,), 1)],
    ),
)
