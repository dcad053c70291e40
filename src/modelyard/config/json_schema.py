"""The JSON schema of the configuration file, generated from the code, for editors: ``#:schema`` at the top of a file.

Draft 7, which taplo and the TOML extensions of editors take. Source: https://taplo.tamasfe.dev/configuration/using-schemas.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from modelyard.config.counts import MAX_CONTEXT, TOKENS_PATTERN
from modelyard.config.mcp import MAX_TIMEOUT_S
from modelyard.config.quantization_names import ISQ_NAMES, QUANT_NAMES
from modelyard.config.schema import Config

SCHEMA_FILE: Final = Path(__file__).with_name("models.schema.json")
"""The schema as it is shipped; ``scripts/write_docs.py`` writes it."""

_DRAFT: Final = "http://json-schema.org/draft-07/schema#"

_VARIABLE: Final = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}"}
_DURATION: Final = {
    "type": "string",
    "pattern": r"^\s*(\d+(\.\d+)?\s*(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)\s*)+$",
}
_SIZE: Final = {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*([KkMmGgTt]?[Ii]?[Bb])\s*$"}
_SHARE: Final = {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*%\s*$"}
_TOKENS: Final = {"type": "string", "pattern": TOKENS_PATTERN}
_BYTES: Final = {"type": "integer", "minimum": 1}
_TIMEOUT: Final[list[dict[str, Any]]] = [{"type": "number", "minimum": 1, "maximum": MAX_TIMEOUT_S}, _DURATION]

_BUDGET: Final[list[dict[str, Any]]] = [_SIZE, _SHARE, {"type": "number", "exclusiveMinimum": 0, "maximum": 1}]

# Keys whose values are read from more types than the one that they are kept in.
_SPECIAL: Final[Mapping[str, list[dict[str, Any]]]] = {
    "max_seq_len": [{"type": "integer", "minimum": 1, "maximum": MAX_CONTEXT}, _TOKENS, {"const": "auto"}],
    "budget": _BUDGET,
    "kv_keep_bytes": [_SIZE, _BYTES],
    "idle_unload_seconds": [{"type": "number", "minimum": 0}, _DURATION],
    "max_audio_seconds": [{"type": "number", "minimum": 1, "maximum": 14_400}, _DURATION],
    "tool_timeout": _TIMEOUT,
    "approval_timeout": _TIMEOUT,
    "timeout": _TIMEOUT,
    "max_result": [_SIZE, _BYTES],
    "approval": [
        {"type": "string", "enum": ["never", "always"]},
        {"type": "array", "items": {"type": "string", "minLength": 1}},
    ],
    "device_layers": [
        {"type": "integer", "minimum": 0, "maximum": 512},
        {"type": "array", "items": {"type": "string", "pattern": r"^\s*\d{1,3}\s*:\s*\d{1,3}\s*$"}, "minItems": 1},
    ],
    "tensor_overrides": [{"type": "array", "items": {"type": "string", "pattern": "^.+=.+$"}, "minItems": 1}],
}
# Keys that also take a number of tokens with a unit.
_COUNTS: Final = frozenset({"batch_tokens", "tokens_per_minute", "max_context", "max_tokens"})
_EXAMPLES: Final[Mapping[str, list[str]]] = {"quant": list(QUANT_NAMES), "isq": list(ISQ_NAMES)}


def render_schema() -> str:
    """Return the schema as the text of a JSON file."""
    schema = Config.model_json_schema()
    definitions = {name: _table(table) for name, table in sorted(schema.pop("$defs").items())}
    whole = {
        "$schema": _DRAFT,
        "title": "Modelyard's configuration",
        **_table(schema),
        "definitions": definitions,
    }
    return json.dumps(whole, indent=2, ensure_ascii=False).replace("#/$defs/", "#/definitions/") + "\n"


def _table(schema: Mapping[str, Any]) -> dict[str, Any]:
    table = {key: schema[key] for key in ("description", "type", "additionalProperties", "required") if key in schema}
    if "description" in table:  # the first paragraph of a docstring, in Markdown
        table["description"] = table["description"].partition("\n\n")[0].replace("``", "`").replace("\n", " ")
    return {**table, "properties": {name: _key(name, key) for name, key in schema["properties"].items()}}


def _key(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a key: of its values, with its description and default. TOML has no null."""
    parts = [part for part in schema.get("anyOf", ()) if part.get("type") != "null"]
    value = dict(parts[0]) if parts else dict(schema)
    described = {key: schema[key] for key in ("description", "default") if schema.get(key) is not None}
    for key in ("title", "description", "default", "wording", "writeOnly", "format"):
        value.pop(key, None)
    if "items" in value:
        value["items"] = {key: part for key, part in value["items"].items() if key not in ("wording", "writeOnly")}
    if "$ref" in value:
        # A reference takes the place of everything beside it before draft 2019-09.
        return {"allOf": [value], **{key: part for key, part in described.items() if key != "default"}}
    if name in _COUNTS:
        return {**described, "anyOf": [value, _TOKENS, _VARIABLE]}
    if name in _SPECIAL:
        return {**described, "anyOf": [*_SPECIAL[name], _VARIABLE]}
    if "enum" in value or value.get("type") in ("integer", "number", "boolean"):
        return {**described, "anyOf": [value, _VARIABLE]}
    if isinstance(values := value.get("additionalProperties"), dict) and "wording" in values:
        # Budgets of devices, the one table whose values are read from several types.
        value["additionalProperties"] = {"anyOf": [*_BUDGET, _VARIABLE]}
    if name in _EXAMPLES:
        value["examples"] = _EXAMPLES[name]
    return {**described, **value}
