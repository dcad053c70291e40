"""The arguments of calls in dialects that send them as objects."""

from __future__ import annotations

import json
from typing import Any, Final

import orjson

MAX_DEPTH: Final = 128
"""Depth of arguments that are sent as an object. orjson writes about twice as many levels, those around it included."""


def arguments_object(arguments: str) -> dict[str, Any]:
    """Return the arguments of a call as an object that can be written as JSON; {} if they are none.

    A model may write what Python reads, and orjson does not write: a number of more than 64 bits becomes the nearest
    float, and a lone surrogate "?". Arguments of more than MAX_DEPTH levels count as none.
    """
    try:
        parsed = orjson.loads(arguments)
    except ValueError:
        try:
            parsed = json.loads(arguments)
        except (ValueError, RecursionError):
            return {}
    if not isinstance(parsed, dict):
        return {}
    try:
        writable: dict[str, Any] = _writable(parsed, MAX_DEPTH)
    except _TooDeep:
        return {}
    return writable


class _TooDeep(Exception):
    """A value has too many levels."""


def _writable(value: Any, depth: int) -> Any:
    match value:
        case dict() | list() if depth == 0:
            raise _TooDeep
        case dict():
            return {_writable(name, depth): _writable(each, depth - 1) for name, each in value.items()}
        case list():
            return [_writable(each, depth - 1) for each in value]
        case str():
            return value if value.isascii() else value.encode(errors="replace").decode()
        case int() if not -(1 << 63) <= value < 1 << 64:
            try:
                return float(value)
            except OverflowError:
                # JSON has no infinite number; orjson writes null.
                return float("inf")
    return value
