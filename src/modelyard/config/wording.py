"""Words for messages and for the reference of all keys: what a key expects, and what was found instead."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

_MAX_SHOWN_LENGTH = 60
# Larger numbers are not shown: Python refuses to print integers of more than 4,300 digits.
_MAX_SHOWN = 10**20


def expected(schema: Mapping[str, Any]) -> str:
    """Return what the JSON schema of a key expects, as a noun phrase: ``a whole number from 0 to 65535``."""
    if "wording" in schema:
        return str(schema["wording"])
    schema = _without_null(schema)
    if "enum" in schema:
        return "one of " + ", ".join(f'"{choice}"' for choice in schema["enum"])
    match schema["type"]:
        case "boolean":
            return "true or false"
        case "integer":
            return f"a whole number{_range(schema)}"
        case "number":
            return f"a number{_range(schema)}"
        case "array":
            return f"a list, each item {expected(schema['items'])}"
        case _:
            return "a path in quotes" if schema.get("format") == "path" else "non-empty text in quotes"


def is_text(schema: Mapping[str, Any]) -> bool:
    """Whether the key holds text."""
    return _without_null(schema).get("type") == "string"


def type_of(schema: Mapping[str, Any]) -> object:
    """Return the JSON type of the key's value; None where it has several."""
    return _without_null(schema).get("type")


def choices(schema: Mapping[str, Any]) -> Sequence[str]:
    """Return the values that the key is limited to; empty where it is not."""
    return list(_without_null(schema).get("enum", ()))


def items_of(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of the items of the key's list."""
    items: Mapping[str, Any] = _without_null(schema)["items"]
    return items


def values_of(schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the schema of the values of a key that holds a table with any names; None where it holds none."""
    values = _without_null(schema).get("additionalProperties")
    return values if isinstance(values, Mapping) else None


def is_secret(schema: Mapping[str, Any]) -> bool:
    """Whether the key's value, or an item of its list, must never be shown."""
    return bool(_without_null(schema.get("items", schema)).get("format") == "password")


def shown(value: object) -> str:
    """A value as a message shows it: short, on one line, a table or list by its kind only."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() if abs(value) > _MAX_SHOWN:
            return "a number of more than 20 digits"
        case str():
            return repr(value if len(value) <= _MAX_SHOWN_LENGTH else value[: _MAX_SHOWN_LENGTH - 1] + "…")
        case Mapping():
            return "a table"
        case list() | tuple():
            return "a list"
        case int() | float() | datetime.date() | datetime.time():
            return str(value)
        case _:
            return f"a {type(value).__name__}"


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return ``Did you mean 'isq'?`` for the closest known word, or "" where none is close."""
    near = get_close_matches(word, known, n=1)
    return f"Did you mean {shown(near[0])}?" if near else ""


def _without_null(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of the value itself, for a key that may be unset."""
    return next((part for part in schema.get("anyOf", ()) if part.get("type") != "null"), schema)


def _range(schema: Mapping[str, Any]) -> str:
    low, above, high = schema.get("minimum"), schema.get("exclusiveMinimum"), schema.get("maximum")
    if above is not None:
        return f" above {above:.15g} and at most {high:.15g}"
    if high is not None:
        return f" from {low} to {high:.15g}" if isinstance(high, float) else f" from {low} to {high}"
    return f" of at least {low}"
