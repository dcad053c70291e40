"""JSON schemas of bodies and answers, made readable."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from modelyard.api.openapi.field_docs import ANSWER_FIELDS, REQUEST_FIELDS

Schema = dict[str, Any]

REF = "#/components/schemas/"

# If two dialects use one name, pydantic prepends the module, from which the dialect is derived.
_QUALIFIED = re.compile(r"modelyard__api__(?:openai__)?(\w+?)__(?:\w+__)?(\w+)")
_DIALECTS = {
    "schema": "Chat",
    "conversation": "Chat",
    "responses": "Responses",
    "anthropic": "Anthropic",
    "ollama": "Ollama",
}


class _Readable(GenerateJsonSchema):
    """Generates schemas without titles, which repeat the names, and with null as a further type."""

    def field_title_should_be_set(self, _schema: Any) -> bool:
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        inner = self.generate_inner(schema["schema"])
        if isinstance(inner.get("type"), str):
            values = inner.get("enum") or [inner[key] for key in ("const",) if key in inner]
            rest = {key: value for key, value in inner.items() if key != "const"}
            return {**rest, "type": [inner["type"], "null"], **({"enum": [*values, None]} if values else {})}
        branches = next((inner[key] for key in ("anyOf", "oneOf") if key in inner), [inner])
        return {"anyOf": [*branches, {"type": "null"}]}


def schemas_of(bodies: Iterable[type], answers: Iterable[type]) -> tuple[dict[type, Schema], dict[str, Schema]]:
    """Return a reference for each body and answer, and all schemas that they refer to, by name.

    Bodies may have further fields, which are ignored or refused; answers have none, unless they say so.
    """
    adapters: list[tuple[type, Literal["validation"], TypeAdapter[Any]]]
    known: dict[str, Schema] = {}
    references: dict[type, Schema] = {}
    for types, are_answers in ((bodies, False), (answers, True)):
        adapters = [(kind, "validation", TypeAdapter(kind)) for kind in types]
        made, document = TypeAdapter.json_schemas(adapters, ref_template=REF + "{model}", schema_generator=_Readable)
        named = _with_names(document.get("$defs", {}))
        references |= {kind: _renamed(schema) for (kind, _), schema in made.items()}
        for name, schema in named.items():
            assert name not in known, f"two schemas are named {name}"
            known[name] = _described(name, schema, is_answer=are_answers)
    return references, known


def _with_names(found: dict[str, Schema]) -> dict[str, Schema]:
    return {_name(name): _renamed(schema) for name, schema in found.items()}


def _name(name: str) -> str:
    if (qualified := _QUALIFIED.fullmatch(name)) is None:
        return name
    return _DIALECTS[qualified[1]] + qualified[2]


def _renamed(value: Any) -> Any:
    """Return a schema with renamed references."""
    match value:
        case {"$ref": str(target), **rest}:
            return {"$ref": REF + _name(target.removeprefix(REF)), **rest}
        case dict():
            return {key: _renamed(each) for key, each in value.items()}
        case list():
            return [_renamed(each) for each in value]
        case float() if value.is_integer():
            return int(value)
    return value


def _described(name: str, schema: Schema, *, is_answer: bool) -> Schema:
    meanings = ANSWER_FIELDS if is_answer else REQUEST_FIELDS
    described = {key: value for key, value in schema.items() if key != "title"}
    if "description" in described:
        described["description"] = described["description"].replace("``", "`")
    if "properties" in schema:
        described["properties"] = {
            field: {"description": meanings.get(f"{name}.{field}", meanings.get(field, "")), **_without_null(each)}
            for field, each in schema["properties"].items()
        }
        if is_answer:
            described.setdefault("additionalProperties", False)
    return described


def _without_null(field: Schema) -> Schema:
    """Return a field without a default of null."""
    return {key: value for key, value in field.items() if key != "default" or value is not None}
