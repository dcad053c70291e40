"""Parses durations such as "10m", "1h30m" and "250 ms"."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Final

DURATION_EXAMPLES: Final = 'a duration such as "90s", "10m" or "1h30m"'

_UNITS: Final = {
    **dict.fromkeys(("ms", "millisecond", "milliseconds"), Decimal("0.001")),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), Decimal(1)),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), Decimal(60)),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), Decimal(3600)),
    **dict.fromkeys(("d", "day", "days"), Decimal(86_400)),
}
_PART: Final = re.compile(r"\s*(\d{1,12}(?:\.\d{1,9})?)\s*([A-Za-z]+)", re.ASCII)


def seconds_of(text: str) -> float:
    """Return the seconds of one or several numbers with units: ``1h30m``, ``90 s``, ``2 days``.

    Raises:
        ValueError: it is no such text.
    """
    total, at = Decimal(0), 0
    while at < len(text):
        match = _PART.match(text, at)
        if match is None or match[2].lower() not in _UNITS:
            raise ValueError(DURATION_EXAMPLES)
        total += Decimal(match[1]) * _UNITS[match[2].lower()]
        at = match.end()
    if not at:
        raise ValueError(DURATION_EXAMPLES)
    return float(total)


def read_duration(value: Any) -> Any:
    """Return the seconds of a duration that is text; anything else unchanged, for the bounds of its key to be checked.

    Raises:
        ValueError: the text is no duration.
    """
    return seconds_of(value.strip()) if isinstance(value, str) else value
