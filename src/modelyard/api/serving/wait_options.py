"""How long a request waits for its model, and how long the model stays loaded: from headers and ``keep_alive``."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator
from starlette.datastructures import Headers
from starlette.requests import Request

from modelyard.api.request_context import RequestContext
from modelyard.config.durations import seconds_of
from modelyard.config.key_rules import MAX_PRIORITY
from modelyard.errors import InvalidRequest
from modelyard.yard.requests.requests import WaitOptions

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?", re.ASCII)

# The parts of a Prefer header; commas and semicolons in quotes do not separate.
_PREFERENCES = re.compile(r'(?:[^,;"]|"(?:[^"\\]|\\.)*")+')
_WAIT = re.compile(r'\s*wait\s*=\s*("?)(\d{1,9})\1\s*', re.IGNORECASE | re.ASCII)


def seconds(value: Any) -> float:
    """Return a duration in the syntax of Ollama: seconds, or text such as "10m" or "1h30m"; below 0 means for ever.

    Raises:
        ValueError: the value is no duration.

    Source: Ollama, docs/faq, "How do I keep a model loaded in memory".
    """
    number = _signed_seconds(value)
    if math.isnan(number):
        raise ValueError('must be seconds, or text such as "10m" or "1h30m"; below 0 means for ever')
    return math.inf if number < 0 else abs(number)


def _signed_seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        try:
            total = seconds_of(value.removeprefix("-"))
        except ValueError:
            return math.nan
        return -total if value.startswith("-") else total
    try:
        return float(value)
    except OverflowError:
        return math.inf


KeepAlive = Annotated[float, BeforeValidator(seconds, json_schema_input_type=float | str)]


def wait_options(headers: Headers, keep_alive_s: float | None) -> WaitOptions:
    """Return the wait options in the headers of a request.

    ``Prefer: wait=N``: wait at most N seconds for the model; 0: do not wait. ``X-Priority``: a whole number from -100
    to 100; higher goes first.

    Raises:
        InvalidRequest: the priority is no such number.

    Source: RFC 7240, section 4.3. An invalid preference is ignored, and the first of several counts (section 2).
    """
    preferences = (part for line in headers.getlist("prefer") for part in _PREFERENCES.findall(line))
    waits = (float(wait[2]) for part in preferences if (wait := _WAIT.fullmatch(part)))
    return WaitOptions(_priority(headers.get("x-priority")), next(waits, None), keep_alive_s)


def wait_options_of(http: Request, keep_alive_s: float | None) -> WaitOptions:
    """Return the wait options of a request, and list its ``keep_alive`` as ignored where it is.

    How long a model stays loaded affects all clients, so it takes a key with the scope ``admin``. The yard ignores
    ``keep_alive`` of other keys.

    Raises:
        InvalidRequest: as ``wait_options``.
    """
    context = RequestContext.of(http.scope)
    if keep_alive_s is not None and not context.caller.may("admin"):
        context.ignore(["keep_alive"])
    return wait_options(http.headers, keep_alive_s)


def _priority(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[+-]?[0-9]{1,3}", text.strip()) or abs(int(text)) > MAX_PRIORITY:
        raise InvalidRequest(
            f"The header X-Priority must be a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}.", "X-Priority"
        )
    return int(text)
