"""The access log: one line a request, with key name, route, model and times; without prompt or key.

A refused request also shows its path and the model that it names, so that its client can be found and corrected.
"""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from modelyard.api.request_context import NO_ROUTE, UNKNOWN_MODEL, RequestContext
from modelyard.config import Server
from modelyard.system.printable import printable

LOGGER = "modelyard.access"

logger = logging.getLogger(LOGGER)

MAX_PATH_CHARS: Final = 200
MAX_NAME_CHARS: Final = 100

# Lines about requests that were refused before they reached a model: a client that only sends such requests could fill
# the disk with them.
MAX_REFUSALS_PER_S: Final = 10.0
MAX_REFUSALS_AT_ONCE: Final = 50.0

# A segment of a path that may be a key, pasted in the wrong place.
_SECRET: Final = re.compile(r"(?i)(?:sk|pk|hf|key|api|token)[-_].*|(?=.*\d)(?=.*[a-z])[\w-]{32,}")


class LineLimit:
    """Limits lines to some a second, with a burst; a token bucket.

    Attributes:
        left_out: lines that were not written since ``reset``.
    """

    def __init__(self, per_s: float = MAX_REFUSALS_PER_S, at_once: float = MAX_REFUSALS_AT_ONCE) -> None:
        self.left_out = 0
        self._per_s, self._at_once = per_s, at_once
        self._left, self._filled_s = at_once, 0.0

    def allows(self, now_s: float) -> bool:
        """Whether a line may be written at ``now_s``; it counts as written, or as left out."""
        self._left = min(self._at_once, self._left + (now_s - self._filled_s) * self._per_s)
        self._filled_s = now_s
        if self._left < 1:
            self.left_out += 1
            return False
        self._left -= 1
        return True

    def reset(self) -> int:
        """Return how many lines were left out, and count from 0 again."""
        left_out, self.left_out = self.left_out, 0
        return left_out


class AccessLog:
    """Writes lines in the format that ``[server]`` configures."""

    def __init__(self, server: Server) -> None:
        self._is_on = not server.disable_access_log
        self._as_json = server.access_log_format == "json"
        self._logs_health = server.access_log_health
        self._limit = LineLimit()

    def note(self, context: RequestContext) -> None:
        """Log a request that has ended."""
        if not self._is_on or (context.is_housekeeping and not self._logs_health):
            return
        if is_refused(context) and not self._limit.allows(context.ended):
            return
        if left_out := self._limit.reset():
            self._write_left_out(left_out)
        fields = fields_of(context)
        if self._as_json:
            logger.info("%s", _json_line(fields))
        else:
            head = [str(fields.pop(name)) for name in ("method", "route", "status")]
            logger.info("%s", " ".join(head + [f"{name}={value}" for name, value in fields.items()]))

    def _write_left_out(self, count: int) -> None:
        if self._as_json:
            logger.warning("%s", _json_line({"refused_without_line": count}))
        else:
            logger.warning("%d more requests were refused; the log has %g of them a second", count, MAX_REFUSALS_PER_S)


def _json_line(fields: dict[str, Any]) -> str:
    """Return a line of JSON that prints: names with other characters are escaped here, where they can be as JSON is."""
    line = orjson.dumps({"time": datetime.now(UTC), **fields}).decode()
    return line if line.isprintable() else json.dumps(orjson.loads(line))


def is_refused(context: RequestContext) -> bool:
    """Whether the request was refused before it reached a model."""
    return (context.status or 0) >= 400 and not context.caller.requests


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
        "path": _shown_path(context) if is_refused(context) else None,
        "model": _shown_model(context),
        "key": context.key.name if context.key else None,
        "ms": round((context.ended - context.began) * 1000, 1),
        "ttft_ms": None if ttft_s is None else round(ttft_s * 1000, 1),
        "prompt_tokens": sum(usage.prompt_tokens for usage in usages) if usages else None,
        "completion_tokens": sum(usage.completion_tokens for usage in usages) if usages else None,
        "finish": _finish_reason(context),
        "error": context.error_code
        or next((one.error_code for one in context.caller.requests if one.error_code), None),
        "param": None if context.error_param is None else _word(context.error_param, MAX_NAME_CHARS),
        "request_id": context.request_id,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _shown_path(context: RequestContext) -> str | None:
    """Return the path of a request, without its query; None where the route says as much."""
    path = context.path
    if path == context.route and context.route != NO_ROUTE:
        return None
    parts = ("***" if _SECRET.fullmatch(part) else part for part in path[: 2 * MAX_PATH_CHARS].split("/"))
    return _word("/".join(parts), MAX_PATH_CHARS)


def _shown_model(context: RequestContext) -> str | None:
    if context.caller.model is not None or not context.caller.has_asked:
        return context.caller.model
    if context.unknown_model is None:
        return UNKNOWN_MODEL
    return _word(context.unknown_model, MAX_NAME_CHARS)


def _word(text: str, limit: int) -> str:
    """Return text of a client as one printable word: a space would end its field of the line."""
    return printable(text, limit).replace(" ", "%20")


def _finish_reason(context: RequestContext) -> str | None:
    """Return how the last answer of the request ended; None: there was none."""
    if not context.caller.requests:
        return None
    generation = context.caller.requests[-1]
    if generation.finished is not None:
        return generation.finished.reason
    return "failed" if generation.is_over else "cancelled"
