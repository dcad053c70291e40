"""Checks the schemas of tools, which foreign servers write. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

MAX_SCHEMA_BYTES: Final = 64 * 1024
MAX_SCHEMA_DEPTH: Final = 32


class UnusableSchema(Exception):
    """The schema of a tool cannot be used; the message says why."""


def parameters_of(schema: object) -> dict[str, Any]:
    """Return the JSON schema of a tool's arguments, as it is given to models.

    Raises:
        UnusableSchema: it is no schema of an object, too large or too deep, or refers to other documents.
    """
    if not isinstance(schema, Mapping):
        raise UnusableSchema("its inputSchema is no object")
    if schema.get("type", "object") != "object":
        raise UnusableSchema("its inputSchema is not of the type object")
    _check(schema, 1)
    try:
        size = len(orjson.dumps(schema))
    except TypeError as fault:
        # A number of more than 64 bits, or half of a character: answers that list the tool could not be written.
        raise UnusableSchema(f"its inputSchema cannot be written as JSON ({fault})") from None
    if size > MAX_SCHEMA_BYTES:
        raise UnusableSchema(f"its inputSchema has {size} bytes, and {MAX_SCHEMA_BYTES} are the limit")
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping):
        raise UnusableSchema("the properties of its inputSchema are no object")
    kept = {key: value for key, value in schema.items() if key not in ("$schema", "$id")}
    return {**kept, "type": "object", "properties": dict(properties)}


def _check(value: object, depth: int) -> None:
    """Refuse what nests too deep, and references to other documents, which nobody fetches."""
    if depth > MAX_SCHEMA_DEPTH:
        raise UnusableSchema(f"its inputSchema nests deeper than {MAX_SCHEMA_DEPTH} levels")
    if isinstance(value, Mapping):
        reference = value.get("$ref")
        if isinstance(reference, str) and not reference.startswith("#"):
            raise UnusableSchema("its inputSchema refers to another document")
        for inner in value.values():
            _check(inner, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, depth + 1)
