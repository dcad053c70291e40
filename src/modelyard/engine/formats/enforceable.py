"""Turns JSON schemas into ones that llguidance enforces: without what it cannot express, and with bounded integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelyard.engine.formats.pattern import expressible

# 64 bits, which most programs read integers into. llguidance computes lower bounds as doubles: this is the next one
# above -2**63, from which on it fails.
MIN_INTEGER: Final = -(2**63) + 1024
MAX_INTEGER: Final = 2**63 - 1

# Keywords that hold schemas: by name, and directly or in a list.
_BY_NAME: Final = frozenset({"$defs", "definitions", "properties", "patternProperties", "dependentSchemas"})
_WITHIN: Final = frozenset(
    {
        *("items", "prefixItems", "additionalItems", "unevaluatedItems", "contains"),
        *("additionalProperties", "unevaluatedProperties", "propertyNames"),
        *("allOf", "anyOf", "oneOf", "not", "if", "then", "else"),
    }
)


@dataclass(frozen=True, slots=True)
class Enforceable:
    """A schema, and what was left out of it, such as ``pattern (?=...)``."""

    schema: Mapping[str, Any]
    dropped: tuple[str, ...] = ()


def enforceable(schema: Mapping[str, Any]) -> Enforceable:
    """Return ``schema`` with patterns that llguidance can read, and integers of at most 64 bits.

    Raises:
        RecursionError: it is nested too deeply.
    """
    dropped: dict[str, None] = {}
    return Enforceable(_enforceable(schema, dropped), tuple(dropped))


def _enforceable(schema: Any, dropped: dict[str, None]) -> Any:
    if isinstance(schema, list):
        return [_enforceable(each, dropped) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    written = {key: _value(key, value, dropped) for key, value in schema.items()}
    if _is_integer(schema):
        written |= _bounds(schema)
    return written


def _value(keyword: str, value: Any, dropped: dict[str, None]) -> Any:
    if keyword == "pattern" and isinstance(value, str):
        return _pattern(value, keyword, dropped)
    if keyword == "patternProperties" and isinstance(value, Mapping):
        value = dict(_named(name, each, keyword, dropped) for name, each in value.items())
    if keyword in _BY_NAME and isinstance(value, Mapping):
        return {name: _enforceable(each, dropped) for name, each in value.items()}
    return _enforceable(value, dropped) if keyword in _WITHIN else value


def _named(pattern: str, schema: Any, keyword: str, dropped: dict[str, None]) -> tuple[str, Any]:
    """Return a key of ``patternProperties`` and its schema, which holds nothing if more names match than should."""
    found = expressible(pattern)
    dropped |= dict.fromkeys(f"{keyword} {part}" for part in found.dropped)
    return found.pattern, {} if found.dropped else schema


def _pattern(pattern: str, keyword: str, dropped: dict[str, None]) -> str:
    found = expressible(pattern)
    dropped |= dict.fromkeys(f"{keyword} {part}" for part in found.dropped)
    return found.pattern


def _is_integer(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    kinds = kind if isinstance(kind, list) else [kind]
    return "integer" in kinds and "number" not in kinds and "enum" not in schema and "const" not in schema


def _bounds(schema: Mapping[str, Any]) -> dict[str, int]:
    """Return the bounds that a schema of integers lacks, unless its own are beyond them."""
    lowest = _bound(schema, "minimum", "exclusiveMinimum")
    highest = _bound(schema, "maximum", "exclusiveMaximum")
    bounds = {}
    if lowest is None and (highest is None or highest > MIN_INTEGER):
        bounds["minimum"] = MIN_INTEGER
    if highest is None and (lowest is None or lowest < MAX_INTEGER):
        bounds["maximum"] = MAX_INTEGER
    return bounds


def _bound(schema: Mapping[str, Any], *keywords: str) -> float | None:
    found = [schema[key] for key in keywords if isinstance(schema.get(key), int | float)]
    return found[0] if found else None
