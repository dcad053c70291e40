"""docs/http-api.md, written from the description: ``python scripts/http_reference.py`` prints it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from modelyard.api.app import create_app
from modelyard.api.errors.rendering import shape_of
from modelyard.api.openapi.errors import ANTHROPIC, OLLAMA, OPENAI, codes
from modelyard.api.openapi.schemas import REF, Schema
from modelyard.config import validate_config
from modelyard.errors import InvalidApiKey
from modelyard.yard.yard import Yard


def render_http_api() -> str:
    """The endpoints, a section a dialect; the fields of what they take and give; the errors."""
    config = validate_config({"models": [{"model_id": "model.gguf", "load": "on-demand"}]})
    document = create_app(Yard(config)).openapi()
    return "\n".join(_page(document)).rstrip()


def _page(document: Mapping[str, Any]) -> Iterator[str]:
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    for tag in document["tags"]:
        yield f"## {tag['name']}\n\n{tag['description']}\n"
        for method, path, operation in operations:
            if operation["tags"] == [tag["name"]]:
                yield from _operation(document, method, path, operation)
    yield "## Headers of requests\n"
    headers = document["components"]["parameters"].values()
    yield table(("Header", "Meaning"), ((f"`{each['name']}`", each["description"]) for each in headers))
    yield "## Objects\n\nWhat the tables above refer to.\n"
    schemas = document["components"]["schemas"]
    told = _told(operations) - {name for name in schemas if f"'{REF}{name}'" in str(schemas)}
    for name, schema in schemas.items():
        if name not in told:
            yield f"### {name}\n\n{_line(schema.get('description', ''))}\n"
            yield from [f"{_type(schema)}.\n"] if "enum" in schema else _fields(schema)
    yield "## Errors\n"
    yield "The same error in the words of each dialect:\n"
    shown = ((each.name, f"`{shape_of(each.path)(InvalidApiKey()).decode()}`") for each in (OPENAI, ANTHROPIC, OLLAMA))
    yield table(("Dialect", "Body"), shown)
    yield table(
        ("Status", "`code`", "`type`", "Meaning"),
        ((str(status), f"`{code}`", f"`{kind}`", meaning) for status, code, kind, meaning in codes()),
    )


def _operation(document: Mapping[str, Any], method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {method} {path}\n\n{_line(operation['description'])}\n"
    parameters = [each for each in operation.get("parameters", ()) if "name" in each]
    if parameters:
        yield table(
            ("Parameter", "In", "Type"),
            ((f"`{each['name']}`", each["in"], _type(each["schema"])) for each in parameters),
        )
    for content in operation.get("requestBody", {}).get("content", {}).values():
        if "schema" not in content:
            yield "The body is the file itself.\n"
            continue
        if "example" in content:
            yield _block("json", json.dumps(content["example"]))
        body = _resolved(document, content["schema"])
        if body.get("type") == "array":
            yield f"The body is a {_type(body)}.\n"
        yield from _fields(body)
    yield from _answers(document, operation["responses"])


def _answers(document: Mapping[str, Any], responses: Mapping[str, Any]) -> Iterator[str]:
    for kind, content in responses["200"]["content"].items():
        if "schema" in content and "$ref" in content["schema"]:
            name = content["schema"]["$ref"].removeprefix(REF)
            yield f"Answers with a `{name}`:\n"
            yield from _fields(_resolved(document, content["schema"]))
        else:
            yield f"As `{kind}`:\n"
            yield _block("text", content["example"].rstrip("\n"))
    failures = ", ".join(status for status in responses if int(status) >= 400)
    yield f"May fail with {failures}.\n"


def _told(operations: Iterable[tuple[str, str, Mapping[str, Any]]]) -> set[str]:
    """The objects whose fields are told where they are asked for and answered."""
    told: set[str] = set()
    for _, _, operation in operations:
        for part in (operation.get("requestBody", {}), operation["responses"]["200"]):
            for content in part.get("content", {}).values():
                told.add(content.get("schema", {}).get("$ref", "").removeprefix(REF))
    return told


def _resolved(document: Mapping[str, Any], schema: Schema) -> Schema:
    found: Schema = document["components"]["schemas"][schema["$ref"].removeprefix(REF)]
    return found


def _fields(schema: Schema) -> Iterator[str]:
    required = schema.get("required", ())
    rows = [
        (f"`{name}`", _type(field) + ("" if name in required else ", optional"), _line(field["description"]))
        for name, field in schema.get("properties", {}).items()
    ]
    if rows:
        yield table(("Field", "Type", "Meaning"), rows)


def _type(schema: Schema) -> str:
    """A type in a few words, such as "text", "list of ChatMessage", "whole number 1 to 64"."""
    match schema:
        case {"$ref": str(target)}:
            name = target.removeprefix(REF)
            return f"[{name}](#{name.lower()})"
        case {"anyOf": list(branches)} | {"oneOf": list(branches)}:
            return " or ".join(dict.fromkeys(_type(branch) for branch in branches))
        case {"const": value}:
            return f"`{json.dumps(value)}`"
        case {"enum": list(values)}:
            return " or ".join(f"`{json.dumps(value)}`" for value in values)
        case {"type": list(kinds)}:
            return " or ".join(_type({**schema, "type": kind}) for kind in kinds)
        case {"type": "array"}:
            return f"list of {_type(schema.get('items', {}))}"
        case {"type": "object", "additionalProperties": dict(values)}:
            return f"object of {_type(values)}"
        case {"type": str(kind)}:
            return _WORDS[kind] + (_bounds(schema) if kind in ("integer", "number") else "")
    return "anything"


_WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "object",
    "null": "null",
}
# Wider bounds are those of the number's type.
_WIDEST = 2**31 - 1


def _bounds(schema: Schema) -> str:
    least = schema.get("minimum", schema.get("exclusiveMinimum"))
    most = schema.get("maximum")
    above = "above " if "exclusiveMinimum" in schema else "from "
    said = [f" {above}{least}" if least is not None and least >= -_WIDEST else ""]
    said.append(f" to {most}" if most is not None and most < _WIDEST else "")
    return "".join(said)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Markdown: a table with a line for each of ``rows``."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _block(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```\n"


def _line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.stdout.write(render_http_api() + "\n")
