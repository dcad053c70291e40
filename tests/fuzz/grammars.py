"""Random schemas and grammars that are deep, wide, or refer to themselves: each is enforced, or refused at once."""

from __future__ import annotations

import json
import random
from typing import Any, Final

from fuzz.case import Ending, Fault, Place
from fuzz.messages import server_of
from fuzz.server_process import Request

_SIZES: Final = (1, 2, 5, 20, 100, 127, 130, 500, 1000, 3000, 20_000)
_WORDS: Final = ('"a"', '"bc"', "/[a-z]+/", "/\\d{1,9}/", '"\\n"', "/.*/", "/(a|b)*c/", '""', "%json {}", "<|im_end|>")


def play_grammar(seed: int, place: Place) -> Ending:
    """One request with a schema, or with a grammar of llguidance."""
    rng = random.Random(f"grammars {seed}")
    body: dict[str, Any] = {"model": "smollm2", "max_tokens": rng.choice((1, 16, 64)), "temperature": 0}
    body["messages"] = [{"role": "user", "content": "Go on."}]
    match rng.randrange(4):
        case 0:
            body["grammar"] = {"type": "lark", "value": random_lark(rng)}
        case 1:
            body["grammar"] = {"type": "regex", "value": random_regex(rng)}
        case _:
            shape = {"name": "it", "schema": random_schema(rng)}
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
    [reply] = server_of(place).send([Request("/v1/chat/completions", json.dumps(body).encode())])
    if reply.status not in (200, 400):
        shown = json.dumps(body.get("grammar") or body["response_format"])[:500]
        raise Fault(f"{shown}: {reply.status} {reply.body[-400:].decode('utf-8', 'replace')}")
    return Ending("answered" if reply.status == 200 else "refused")


def random_schema(rng: random.Random) -> dict[str, Any]:
    """A JSON schema, the size of whose parts is anything from one to thousands."""
    size = rng.choice(_SIZES)
    match rng.randrange(9):
        case 0:
            return _nested(rng, min(size, 400))
        case 1:
            return _references(rng, size)
        case 2:
            properties = {f"p{n}": _leaf(rng) for n in range(size)}
            required = rng.sample(sorted(properties), rng.randrange(size + 1))
            return {"type": "object", "properties": properties, "required": required}
        case 3:
            return {"enum": [rng.choice((n, f"choice {n}", "a" * min(n, 300), None, [n])) for n in range(size)]}
        case 4:
            keyword = rng.choice(("anyOf", "oneOf", "allOf"))
            return {keyword: [_leaf(rng) for _ in range(size)]}
        case 5:
            least = rng.choice(_SIZES)
            return {"type": "array", "items": _leaf(rng), "minItems": least, "maxItems": least + size}
        case 6:
            return {"type": "string", "pattern": random_regex(rng)}
        case 7:
            names = {f"{rng.choice(('^', '.*', ''))}{n}{rng.choice(('$', '.*', ''))}": _leaf(rng) for n in range(size)}
            return {"type": "object", "patternProperties": names}
        case _:
            step = rng.randrange(1, 10**9)
            return {"type": "integer", "multipleOf": step, "minimum": -size, "maximum": step * size}


def _nested(rng: random.Random, depth: int) -> dict[str, Any]:
    schema = _leaf(rng)
    keyword = rng.choice(("properties", "items", "anyOf", "allOf", "not", "prefixItems", "additionalProperties", "if"))
    for _ in range(depth):
        match keyword:
            case "properties":
                schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
            case "anyOf" | "allOf" | "prefixItems":
                schema = {keyword: [schema, _leaf(rng)]}
            case _:
                schema = {keyword: schema}
    return schema


def _references(rng: random.Random, length: int) -> dict[str, Any]:
    """Definitions that refer to the next, to any other, or to themselves."""

    def target(number: int) -> int:
        return rng.choice((number + 1, number + 1, rng.randrange(length + 1), number))

    parts = {
        f"d{n}": rng.choice(
            (
                {"$ref": f"#/$defs/d{target(n)}"},
                {"type": "object", "properties": {"x": {"$ref": f"#/$defs/d{target(n)}"}}},
                {"anyOf": [{"$ref": f"#/$defs/d{target(n)}"}, _leaf(rng)]},
            )
        )
        for n in range(length)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**parts, f"d{length}": _leaf(rng)}}


def _leaf(rng: random.Random) -> dict[str, Any]:
    return rng.choice(
        (
            {"type": "string", "maxLength": rng.choice(_SIZES)},
            {"type": "integer", "minimum": -rng.choice(_SIZES)},
            {"type": "boolean"},
            {"const": rng.choice((1, "a", None, [1, 2]))},
            {"type": "number", "multipleOf": 0.01},
            {},
        )
    )


def random_lark(rng: random.Random) -> str:
    """A grammar whose rules refer to one another in one way or another."""
    rules = min(rng.choice(_SIZES), 5000)
    shape = rng.choice(("chain", "twice", "any", "choice"))

    def rule(number: int) -> str:
        match shape:
            case "chain":
                return f"r{number + 1}"
            case "twice":
                return f"r{number + 1} r{number + 1}"
            case "any":
                return f"r{rng.randrange(rules + 1)} {rng.choice(_WORDS)}"
            case _:
                return f"r{number + 1} | {rng.choice(_WORDS)} r{rng.randrange(rules + 1)}?"

    lines = ["start: r0", *(f"r{number}: {rule(number)}" for number in range(rules))]
    return "\n".join((*lines, f"r{rules}: {rng.choice(_WORDS)}"))


def random_regex(rng: random.Random) -> str:
    """A regular expression of a few parts, repeated and nested."""
    expression = rng.choice(("a", "[a-z]", ".", "\\d", "(?:a|b)", "[^x]", "\\w"))
    for _ in range(rng.randrange(1, 12)):
        count = rng.choice(_SIZES)
        expression = rng.choice(
            (
                f"(?:{expression})*",
                f"(?:{expression}){{{count}}}",
                f"(?:{expression}){{0,{count}}}",
                f".*{expression}",
                f"(?:{expression}|b{expression})",
                f"{expression}?",
                f"(?:{expression}){{2,}}a",
            )
        )[:20_000]
    return expression
