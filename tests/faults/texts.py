"""Texts that tokenizers and grammars take long for, or die of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

TEXTS: Final[Mapping[str, str]] = {
    "30,000 letters": "a" * 30_000,
    "200,000 letters": "a" * 200_000,
    "200,000 blanks": " " * 200_000,
    "200,000 digits": "1" * 200_000,
    "200,000 marks": "!" * 200_000,
    "200,000 accents": "a" + "\u0301" * 200_000,
    "100,000 ideographs": "日" * 100_000,
    "letters and blanks": "a " * 100_000,
    "one word of many lines": "a\n" * 100_000,
    "control tokens": "<|im_start|>" * 20_000,
    "no Unicode": "\ud800" * 1000,
    "zero bytes": "\0" * 10_000,
    "prose": "The quick brown fox jumps over the lazy dog.\n" * 4000,
}

_DEEP: Final[dict[str, Any]] = {}
_inner = _DEEP
for _ in range(200):
    _inner["type"], _inner["properties"] = "object", {"a": {}}
    _inner = _inner["properties"]["a"]

SCHEMAS: Final[Mapping[str, dict[str, Any]]] = {
    "200 objects deep": _DEEP,
    "a billion items": {"type": "array", "items": {"type": "integer"}, "minItems": 10**9, "maxItems": 10**9},
    "a billion characters": {"type": "string", "minLength": 10**9, "maxLength": 10**9},
    "50,000 choices": {"enum": [f"choice {number}" for number in range(50_000)]},
    "a pattern of patterns": {"type": "string", "pattern": "^((a{1,1000}){1,1000}){1,1000}$"},
    "itself": {"$ref": "#"},
    "itself in a list": {"type": "array", "items": {"$ref": "#"}},
}
