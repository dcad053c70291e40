"""The parts of a request's way, as the ``Server-Timing`` header and as spans of OpenTelemetry."""

from __future__ import annotations

import time

from opentelemetry import trace

from modelyard.yard.requests.timings import RequestTimings

PHASES = ("queue", "load", "prefill", "decode")


def phases(times: RequestTimings) -> dict[str, float]:
    """The parts that are known so far, in the order of the way, in seconds."""
    load_s = times.load_s if times.granted else None
    known = dict(zip(PHASES, (times.queue_s, load_s, times.prefill_s, times.decode_s), strict=True))
    return {name: seconds for name, seconds in known.items() if seconds is not None}


def server_timing(times: RequestTimings) -> str:
    """The parts that are known so far, in milliseconds. Source: W3C, Server Timing, section 2."""
    return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in phases(times).items())


def trace_phases(times: RequestTimings, tracer: trace.Tracer) -> None:
    """Add the parts as spans to that of the request, which FastAPI makes of itself, with the client's as its parent.

    They are made when all is over, so that they cost nothing on the way. Without a provider there is no span to add to.
    """
    if not trace.get_current_span().get_span_context().is_valid:
        return
    # From the clock of the events to that of the spans, which is the world's.
    at = time.time_ns() - round((time.monotonic() - times.arrived) * 1e9)
    for name, seconds in phases(times).items():
        span = tracer.start_span(name, start_time=at)
        at += round(seconds * 1e9)
        span.end(at)
