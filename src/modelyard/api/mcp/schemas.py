"""JSON schemas of the arguments of tools, from the bodies of the HTTP endpoints that do the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, Final

from pydantic import BaseModel

from modelyard.api.openapi.schemas import REF, Schema, schemas_of

_DEFINITIONS: Final = "#/$defs/"
_NULL: Final = {"type": "null"}


@cache
def arguments_schema(body: type[BaseModel], listed: tuple[str, ...]) -> Schema:
    """Return the JSON schema of an object with the fields ``listed`` of ``body``, in their order.

    A field that may be null may also be left out, so that null is not listed: some models' APIs refuse types with null.
    """
    reference, known = schemas_of([body], [])
    schema = known[str(reference[body]["$ref"]).removeprefix(REF)]
    properties = {field: _simplified(schema["properties"][field]) for field in listed}
    arguments: Schema = {"type": "object", "properties": properties}
    if definitions := _reached(properties, known):
        arguments["$defs"] = {name: _simplified(known[name]) for name in definitions}
    return arguments


@cache
def argument_names(body: type[BaseModel], without: frozenset[str] = frozenset()) -> frozenset[str]:
    """Return the names of the fields of ``body``, except those in ``without``."""
    names = frozenset(field.alias or name for name, field in body.model_fields.items())
    return names - without


def _simplified(value: Any) -> Any:
    """Return a schema without null, whose references are to the definitions of the same schema."""
    match value:
        case {"$ref": str(target), **rest}:
            return {"$ref": _DEFINITIONS + target.removeprefix(REF), **_simplified(rest)}
        case {"anyOf": [*branches], **rest} if _NULL in branches:
            kept = [_simplified(branch) for branch in branches if branch != _NULL]
            return {**_simplified(rest), **(kept[0] if len(kept) == 1 else {"anyOf": kept})}
        case {"type": [*types], **rest} if "null" in types:
            kept = [each for each in types if each != "null"]
            simplified = {"type": kept[0] if len(kept) == 1 else kept, **_simplified(rest)}
            values: Any = rest.get("enum")
            named = {} if values is None else {"enum": [each for each in values if each is not None]}
            return {**simplified, **named}
        case dict():
            return {key: _simplified(each) for key, each in value.items()}
        case list():
            return [_simplified(each) for each in value]
    return value


def _reached(properties: Schema, known: Mapping[str, Schema]) -> Collection[str]:
    """Return the names of the definitions that ``properties`` refer to, and those that these refer to."""
    reached: dict[str, None] = {}
    waiting = list(_references(properties))
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached[name] = None
            waiting += _references(known[name])
    return sorted(reached)


def _references(value: Any) -> list[str]:
    match value:
        case dict():
            target = value.get("$ref")
            own = [target.rpartition("/")[2]] if isinstance(target, str) else []
            return own + [name for each in value.values() for name in _references(each)]
        case list():
            return [name for each in value for name in _references(each)]
    return []
