"""The tools of a request, and the types of arguments in their JSON schemas."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelyard.engine.formats.json_text import PYTHON_CONSTANTS, decode
from modelyard.engine.formats.python_text import python_as_json

# A tool without a schema takes no parameters (OpenAI: "omitting parameters defines a function with an empty list").
NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}

# Limit of references that are followed, because schemas may refer to each other in a circle.
_MAX_REFERENCES = 16

_JSON_TYPES = {
    dict: "object",
    list: "array",
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
}


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call.

    Attributes:
        parameters: JSON schema of the arguments, an object.
        strict: whether arguments must follow the schema even if the model is free not to call it.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: NO_PARAMETERS)
    strict: bool = False

    def parameter(self, name: str) -> Mapping[str, Any]:
        """Return the schema of one argument with references followed; empty if there is none."""
        properties = self.parameters.get("properties")
        return self.resolve(properties.get(name) if isinstance(properties, Mapping) else None)

    def resolve(self, schema: object) -> Mapping[str, Any]:
        """Return ``schema``, or the schema that it refers to within the parameters."""
        for _ in range(_MAX_REFERENCES):
            if not isinstance(schema, Mapping):
                return {}
            reference = schema.get("$ref")
            if not isinstance(reference, str) or not reference.startswith("#"):
                return schema
            schema = self.parameters
            for part in reference.removeprefix("#").split("/")[1:]:
                step = part.replace("~1", "/").replace("~0", "~")
                schema = schema.get(step) if isinstance(schema, Mapping) else None
        return {}

    def types(self, schema: Mapping[str, Any]) -> frozenset[str]:
        """Return the JSON types that ``schema`` allows; empty if it does not restrict them."""
        return frozenset(self._types(schema, 0))

    def _types(self, schema: Mapping[str, Any], depth: int) -> set[str]:
        named = schema.get("type")
        if isinstance(named, str):
            return {named}
        if isinstance(named, list):
            return {name for name in named if isinstance(name, str)}
        if isinstance(values := schema.get("enum"), list):
            return {_JSON_TYPES[type(each)] for each in values if type(each) in _JSON_TYPES}
        if "const" in schema and type(schema["const"]) in _JSON_TYPES:
            return {_JSON_TYPES[type(schema["const"])]}
        found: set[str] = set()
        for key in ("anyOf", "oneOf", "allOf"):
            if isinstance(choices := schema.get(key), list) and depth < _MAX_REFERENCES:
                for choice in choices:
                    found |= self._types(self.resolve(choice), depth + 1)
        return found

    def is_text(self, name: str) -> bool:
        """Whether an argument can only be a string, so that its text can be passed on as it arrives."""
        return self.types(self.parameter(name)) == {"string"}

    def argument(self, name: str, text: str) -> str:
        """Return an argument as JSON that a model wrote as bare ``text``; see ``value``."""
        return self.value(self.parameter(name), text)

    def value(self, schema: Mapping[str, Any], text: str) -> str:
        """Return a value of ``schema`` as JSON that a model wrote as bare ``text``.

        Text that is JSON of a type that the schema allows is that value, and so is other JSON, or a list or mapping of
        Python's, if the schema allows no string. All other text is a string.
        """
        types = self.types(schema)
        if types == {"string"}:
            return json.dumps(text, ensure_ascii=False)
        bare = text.strip()
        bare = PYTHON_CONSTANTS.get(bare, bare)
        try:
            decoded = decode(bare)
        except ValueError:
            python = python_as_json(bare) if types and "string" not in types and bare[:1] in ("[", "{", "(") else None
            return json.dumps(text, ensure_ascii=False) if python is None else python
        kind = _JSON_TYPES[type(decoded)]
        if kind == "string" and (not types or "string" in types):
            return json.dumps(text, ensure_ascii=False)
        fits = not types or kind in types or (kind == "integer" and "number" in types)
        if not fits and "string" in types:
            return json.dumps(text, ensure_ascii=False)
        return bare
