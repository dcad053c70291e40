"""Sizes as people write them: "16GiB", "500 MB"."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Final

GIB: Final = 2**30

SIZE_WORDING: Final = 'a size such as "2GiB"'
BUDGET_WORDING: Final = 'a size such as "16GiB", or a number above 0 and at most 1'

_UNITS: Final = {
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", 1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", 1)},
}
_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*([KMGT]?i?B)", re.IGNORECASE)
_BY_LOWER: Final = {unit.lower(): factor for unit, factor in _UNITS.items()}


def read_size(value: Any) -> int:
    """Bytes of a size in text, such as "2GiB" (1024) or "2GB" (1000). A part of a byte is left out.

    Raises:
        ValueError: it is no size above 0.
    """
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2].lower() not in _BY_LOWER:
        raise ValueError(SIZE_WORDING)
    count = int(Decimal(match[1]) * _BY_LOWER[match[2].lower()])
    if count < 1:
        raise ValueError(SIZE_WORDING)
    return count


def read_budget(value: Any) -> int | float | None:
    """A budget: bytes of a size in text, or a part of the machine's memory above 0 and at most 1.

    Raises:
        ValueError: it is neither.
    """
    if value is None:
        return None
    if isinstance(value, float | int) and not isinstance(value, bool):
        if 0 < value <= 1:
            return float(value)
        raise ValueError(BUDGET_WORDING)
    return read_size(value)
