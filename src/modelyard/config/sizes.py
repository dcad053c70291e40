"""Parses sizes such as "16GiB" and "500 MB"."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Final

GIB: Final = 2**30

SIZE_WORDING: Final = 'a size such as "2GiB", or a number of bytes'
BUDGET_WORDING: Final = 'a size such as "16GiB", a part such as "50%", or a number above 0 and at most 1'
DEVICE_BUDGETS_WORDING: Final = 'a table of devices with their budgets, such as { CUDA0 = "20GiB", 1 = "80%" }'

MAX_BYTES: Final = 2**63 - 1

_UNITS: Final = {
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", 1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", 1)},
}
_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*([KMGT]?i?B)", re.IGNORECASE)
_SHORT: Final = re.compile(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([KMGT])i?\s*", re.IGNORECASE)
_PERCENT: Final = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)\s*%")
_BY_LOWER: Final = {unit.lower(): factor for unit, factor in _UNITS.items()}


def read_size(value: Any) -> int:
    """Return the bytes of a size such as "2GiB" (powers of 1024) or "2GB" (powers of 1000), rounded down.

    A whole number is a number of bytes.

    Raises:
        ValueError: it is no size above 0.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_BYTES:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or match[2].lower() not in _BY_LOWER:
        raise ValueError(SIZE_WORDING)
    count = int(Decimal(match[1]) * _BY_LOWER[match[2].lower()])
    if count < 1:
        raise ValueError(SIZE_WORDING)
    return count


def read_budget(value: Any) -> int | float | None:
    """Return a budget: the bytes of a size, or a part of the machine's memory above 0 and at most 1, such as "50%".

    Raises:
        ValueError: it is neither.
    """
    if value is None:
        return None
    if isinstance(value, float | int) and not isinstance(value, bool):
        if 0 < value <= 1:
            return float(value)
        raise ValueError(BUDGET_WORDING)
    percent = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if percent is not None:
        return read_budget(float(percent[1]) / 100)
    return read_size(value)


def read_device_budget(value: Any) -> int | float:
    """Return the budget of a device that is named: the bytes of a size, or a part of the device's memory.

    Raises:
        ValueError: it is neither.
    """
    budget = read_budget(value)
    if budget is None:
        raise ValueError(BUDGET_WORDING)
    return budget


def read_names(value: Any) -> Any:
    """Return a table of devices with their numbers as text: keys of Python may be numbers, those of TOML are text."""
    return {str(name): inner for name, inner in value.items()} if isinstance(value, dict) else value


def size_hint(value: str, wording: str) -> str:
    """Return what to write in place of a size with an incomplete unit, such as "16G", where a size is expected."""
    match = _SHORT.fullmatch(value) if wording in (SIZE_WORDING, BUDGET_WORDING) else None
    return f'Write "{match[1]}{match[2].upper()}iB" or "{match[1]}{match[2].upper()}B".' if match else ""
