"""The phases of a request, as the ``Server-Timing`` header and as OpenTelemetry spans."""

from __future__ import annotations

import time

from opentelemetry import trace

from modelyard.yard.requests.timings import RequestTimings

PHASES = ("queue", "load", "prefill", "decode")


def phases(times: RequestTimings) -> dict[str, float]:
    """Return the phases that are known so far, in order, in seconds."""
    load_s = times.load_s if times.granted else None
    known = dict(zip(PHASES, (times.queue_s, load_s, times.prefill_s, times.decode_s), strict=True))
    return {name: seconds for name, seconds in known.items() if seconds is not None}


def server_timing(times: RequestTimings) -> str:
    """Return the phases that are known so far, in milliseconds. Source: W3C, Server Timing, section 2."""
    return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in phases(times).items())


def trace_phases(times: RequestTimings, tracer: trace.Tracer) -> None:
    """Add the phases as child spans of the current span, which instrumentation of FastAPI creates for the request.

    They are created after the request, so that they cost nothing before. Without a tracer provider there is no current
    span, and nothing is added.
    """
    if not trace.get_current_span().get_span_context().is_valid:
        return
    # Converts monotonic time to the wall clock of spans.
    at = time.time_ns() - round((time.monotonic() - times.arrived) * 1e9)
    for name, seconds in phases(times).items():
        span = tracer.start_span(name, start_time=at)
        at += round(seconds * 1e9)
        span.end(at)
