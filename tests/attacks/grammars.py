"""Schemas and grammars that are deep, large, or grow while they are compiled; and those of real tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

Schema = dict[str, Any]


def _references(length: int) -> Schema:
    chain = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(length)}
    return {"$ref": "#/$defs/d0", "$defs": {**chain, f"d{length}": {"type": "string"}}}


def _nested(depth: int, keyword: str) -> Schema:
    schema: Schema = {"type": "string"}
    for _ in range(depth):
        match keyword:
            case "properties":
                schema = {"type": "object", "properties": {"a": schema}}
            case "items":
                schema = {"type": "array", "items": schema}
            case "not":
                schema = {"not": schema}
            case _:
                schema = {keyword: [schema, {"type": "null"}]}
    return schema


def _optional(number: int, **more: Any) -> Schema:
    properties = {f"property_{n}": {"type": "string", "maxLength": 3} for n in range(number)}
    return {"type": "object", "properties": properties, "additionalProperties": False, **more}


SCHEMAS: Final[Mapping[str, Callable[[], Schema]]] = {
    "3,000 references in a row": lambda: _references(3000),
    "30,000 references in a row": lambda: _references(30_000),
    **{
        f"{keyword} {depth} deep": lambda keyword=keyword, depth=depth: _nested(depth, keyword)  # type: ignore[misc]
        for keyword in ("properties", "items", "anyOf", "allOf", "oneOf", "not")
        for depth in (100, 400)
    },
    "all of all": lambda: {"allOf": [{"anyOf": [{"type": "string", "maxLength": n} for n in range(40)]}] * 40},
    "multiples": lambda: {"type": "integer", "multipleOf": 10**9 + 7, "minimum": 0, "maximum": 10**18},
    "a pattern of patterns": lambda: {"type": "string", "pattern": "((a{1,1000}){1,1000}){1,1000}"},
    "patterns that meet": lambda: {"type": "string", "pattern": ".*a.{100}b.*|.*b.{100}a.*"},
    "patterns of names": lambda: {"type": "object", "patternProperties": {f"^.*{n}.*$": {} for n in range(300)}},
    "an enum of long texts": lambda: {"enum": [f"{n}" + "a" * 10_000 for n in range(400)]},
    "a reference to itself": lambda: {"$ref": "#"},
    "a tree of itself": lambda: {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}},
}

TOOLS: Final[Mapping[str, Callable[[], Schema]]] = {
    "900 optional properties": lambda: _optional(900),
    "900 required properties": lambda: _optional(900, required=[f"property_{n}" for n in range(900)]),
    "300 optional properties": lambda: _optional(300),
    "an enum of 2,000": lambda: {"type": "object", "properties": {"a": {"enum": [f"choice {n}" for n in range(2000)]}}},
    "a tree": lambda: {
        "type": "object",
        "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#"}}},
        "required": ["value"],
    },
}
"""What real tools have: it works, or is refused at once; it never fails within an answer."""

LARK: Final[Mapping[str, Callable[[], str]]] = {
    "3,000 rules in a row": lambda: (
        "start: r0\n" + "\n".join(f"r{n}: r{n + 1}" for n in range(3000)) + '\nr3000: "a"\n'
    ),
    "rules that double": lambda: (
        "start: r0\n" + "\n".join(f"r{n}: r{n + 1} r{n + 1}" for n in range(60)) + '\nr60: "a"\n'
    ),
    "parentheses": lambda: "start: " + "(" * 20_000 + '"a"' + ")" * 20_000 + "\n",
    "repeats of repeats": lambda: 'start: ((("a"{1,1000}){1,1000}){1,1000})\n',
    "left recursion": lambda: 'start: start "a" | "a"\n',
    "nothing at all": lambda: "start: start\n",
}
