"""One line for each request: who asked what of which model, and how long it took. No prompt, no key, no path."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import orjson

from modelyard.api.request_context import RequestContext
from modelyard.config import Server

LOGGER = "modelyard.access"

logger = logging.getLogger(LOGGER)


class AccessLog:
    """Writes the lines as ``[server]`` wants them."""

    def __init__(self, server: Server) -> None:
        self._is_on = not server.disable_access_log
        self._as_json = server.access_log_format == "json"
        self._logs_health = server.access_log_health

    def note(self, visit: RequestContext) -> None:
        """A request is over."""
        if not self._is_on or (visit.is_housekeeping and not self._logs_health):
            return
        facts = facts_of(visit)
        if self._as_json:
            logger.info("%s", orjson.dumps({"time": datetime.now(UTC), **facts}).decode())
        else:
            head = [str(facts.pop(name)) for name in ("method", "route", "status")]
            logger.info("%s", " ".join(head + [f"{name}={value}" for name, value in facts.items()]))


def facts_of(visit: RequestContext) -> dict[str, Any]:
    """What a line says; what is not known is left out. A client that left before its answer began has status 499."""
    ended = [generation.finished for generation in visit.caller.requests]
    times = visit.times
    ttft_s = None if times is None else times.first_token_s
    usages = [finished.usage for finished in ended if finished is not None]
    known = {
        "method": visit.method,
        "route": visit.route,
        "status": visit.status or 499,
        "model": visit.caller.model,
        "key": visit.key.name if visit.key else None,
        "ms": round((visit.ended - visit.began) * 1000, 1),
        "ttft_ms": None if ttft_s is None else round(ttft_s * 1000, 1),
        "prompt_tokens": sum(usage.prompt_tokens for usage in usages) if usages else None,
        "completion_tokens": sum(usage.completion_tokens for usage in usages) if usages else None,
        "finish": _finish(visit),
        "request_id": visit.request_id,
    }
    return {name: value for name, value in known.items() if value is not None}


def _finish(visit: RequestContext) -> str | None:
    """How the last of its answers ended."""
    if not visit.caller.requests:
        return None
    generation = visit.caller.requests[-1]
    if generation.finished is not None:
        return generation.finished.reason
    return "failed" if generation.is_over else "cancelled"
