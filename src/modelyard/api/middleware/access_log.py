"""The access log: one line a request, with key name, route, model and times; without prompt, key or path."""

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
    """Writes lines in the format that ``[server]`` configures."""

    def __init__(self, server: Server) -> None:
        self._is_on = not server.disable_access_log
        self._as_json = server.access_log_format == "json"
        self._logs_health = server.access_log_health

    def note(self, context: RequestContext) -> None:
        """Log a request that has ended."""
        if not self._is_on or (context.is_housekeeping and not self._logs_health):
            return
        fields = fields_of(context)
        if self._as_json:
            logger.info("%s", orjson.dumps({"time": datetime.now(UTC), **fields}).decode())
        else:
            head = [str(fields.pop(name)) for name in ("method", "route", "status")]
            logger.info("%s", " ".join(head + [f"{name}={value}" for name, value in fields.items()]))


def fields_of(context: RequestContext) -> dict[str, Any]:
    """Return the known fields of a line. A client that left before its answer began has status 499."""
    outcomes = [generation.finished for generation in context.caller.requests]
    times = context.times
    ttft_s = None if times is None else times.first_token_s
    usages = [finished.usage for finished in outcomes if finished is not None]
    fields = {
        "method": context.method,
        "route": context.route,
        "status": context.status or 499,
        "model": context.caller.model,
        "key": context.key.name if context.key else None,
        "ms": round((context.ended - context.began) * 1000, 1),
        "ttft_ms": None if ttft_s is None else round(ttft_s * 1000, 1),
        "prompt_tokens": sum(usage.prompt_tokens for usage in usages) if usages else None,
        "completion_tokens": sum(usage.completion_tokens for usage in usages) if usages else None,
        "finish": _finish_reason(context),
        "error": context.error_code
        or next((one.error_code for one in context.caller.requests if one.error_code), None),
        "request_id": context.request_id,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _finish_reason(context: RequestContext) -> str | None:
    """Return how the last answer of the request ended; None: there was none."""
    if not context.caller.requests:
        return None
    generation = context.caller.requests[-1]
    if generation.finished is not None:
        return generation.finished.reason
    return "failed" if generation.is_over else "cancelled"
