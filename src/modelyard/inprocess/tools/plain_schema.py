"""JSON schemas as models and chat templates read them best: without titles, and without references."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

MAX_NODES: Final = 4096
"""Objects and lists of a schema up to which its references are replaced by what they name."""

# Keywords whose value maps names, of properties for example, to schemas; a name may be that of a keyword.
_MAPS: Final = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs"})
# Keywords whose value is data.
_DATA: Final = frozenset({"default", "const", "enum", "examples"})
# The titles that pydantic derives from names, and OpenAPI's keyword, which only repeats ``oneOf``.
_LEFT_OUT: Final = frozenset({"title", "discriminator"})
_REFERENCE: Final = "#/$defs/"


class _TooLarge(Exception):
    """The schema without references would be too large, or endless, because a type contains itself."""


def plain_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema of pydantic without the titles that it derives from names, and without references.

    Values that are no JSON, such as the default ``math.inf``, are left out: no grammar is made of a schema with them.
    Where a type contains itself, or the schema would become too large, references stay.
    """
    untitled: dict[str, Any] = _cleaned(schema)
    definitions = untitled.get("$defs")
    if not definitions:
        return untitled
    try:
        inlined: dict[str, Any] = _Inlining(definitions).schema(
            {key: value for key, value in untitled.items() if key != "$defs"}, ()
        )
    except _TooLarge:
        return untitled
    return inlined


def _cleaned(schema: Any) -> Any:
    """Return ``schema`` without titles, and without values that are no JSON."""
    if isinstance(schema, list):
        return [_cleaned(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    kept = {
        key: value for key, value in schema.items() if key not in _LEFT_OUT and (key not in _DATA or _is_json(value))
    }
    return _with_parts(kept, _cleaned)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def _with_parts(schema: Mapping[str, Any], replaced: Callable[[Any], Any]) -> dict[str, Any]:
    """Return ``schema`` with each schema or list of schemas directly within it replaced."""
    parts: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _MAPS:
            parts[key] = {name: replaced(each) for name, each in value.items()}
        else:
            parts[key] = value if key in _DATA else replaced(value)
    return parts


class _Inlining:
    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions, self._nodes = definitions, 0

    def schema(self, schema: Any, within: tuple[str, ...]) -> Any:
        """Return ``schema`` with what its references name; ``within`` are the references that led here."""
        if not isinstance(schema, Mapping | list):
            return schema
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _TooLarge
        if isinstance(schema, list):
            return [self.schema(each, within) for each in schema]
        while isinstance(reference := schema.get("$ref"), str) and reference.startswith(_REFERENCE):
            name = reference.removeprefix(_REFERENCE)
            if name in within:
                raise _TooLarge
            # What stands beside a reference, such as the description of a parameter, goes before what it names.
            beside = {key: value for key, value in schema.items() if key != "$ref"}
            schema = {**self._definitions[name], **beside}
            within = (*within, name)
        return _with_parts(schema, lambda each: self.schema(each, within))
