"""Random bodies for the endpoints of the HTTP API: mostly right, wrong in a place or two. Pure."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from fuzz.nasty_texts import nasty_text
from fuzz.server_process import Request

Make = Callable[[random.Random], Any]

_TOKENS: Final = (1, 1, 2, 3, 5, 16, 0, -1, 10**9, None, "7", 1.5)
_KEYWORDS: Final = (
    "type", "properties", "required", "additionalProperties", "items", "prefixItems", "minItems", "maxItems", "enum",
    "const", "anyOf", "oneOf", "allOf", "not", "$ref", "$defs", "pattern", "format", "minimum", "maximum",
    "exclusiveMinimum", "multipleOf", "minLength", "maxLength", "if", "then", "else", "patternProperties",
    "propertyNames", "minProperties", "maxProperties", "uniqueItems", "contains", "dependentRequired", "title",
    "description", "default", "nullable", "unevaluatedProperties", "$schema", "$id", "$anchor", "$dynamicRef", "x",
)  # fmt: skip
_TYPES: Final = ("string", "integer", "number", "boolean", "null", "array", "object", "zzz")
_PATTERNS: Final = (
    "a+", "^a$", "(a|b)*c{2,5}", "[", "(?=a)b", "\\d{1,1000}", "(a{1000}){1000}", "\\p{L}+", "[^\\x00-\\x{10FFFF}]",
    "(((((((((a*)*)*)*)*)*)*)*)*)*", "\\1(a)", ".{0,100000}", "", "\ud800", "(?i)a", "[a-z]{3}@[a-z]+\\.com", "a{,5}",
    "(?<x>a)\\k<x>", "^(?!a).*$", "\\b", "[z-a]",
)  # fmt: skip
_FORMATS: Final = ("date-time", "date", "time", "email", "uuid", "ipv4", "ipv6", "uri", "hostname", "zzz", "regex")
_GRAMMARS: Final = (
    'start: "a"', "start: /a+/", "start: start", "start: a\na: b\nb: a", 'start: "a"*', "", "x", "start: %json {}",
    'start: "a" start | ', "start: /(a{1000}){1000}/", "root ::= \"a\"", "root ::= root", 'start: "a"{1,100000}',
    "%llguidance {}\nstart: /./", "start: /[/", "start: <|im_end|>", "start: " + "(" * 500 + '"a"' + ")" * 500,
)  # fmt: skip
_DEEPEST: Final = 6


def random_request(rng: random.Random) -> Request:
    """A request to some endpoint."""
    path, make = rng.choice(_ENDPOINTS)
    body: Any = make(rng)
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
        body = _broken(rng, body)
    return Request(path, encoded(rng, body))


def encoded(rng: random.Random, body: Any) -> bytes:
    """JSON, which is damaged now and then."""
    raw = json.dumps(body, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    match rng.randrange(40):
        case 0:
            place = rng.randrange(len(raw))
            raw = raw[:place] + rng.randbytes(rng.randrange(4)) + raw[place + 1 :]
        case 1:
            raw = raw[: rng.randrange(len(raw))]
        case 2:
            depth = rng.choice((10, 1000, 100_000))
            raw = b'{"model": "smollm2", "messages": ' + b"[" * depth + b"]" * depth + b"}"
        case 3:
            raw = raw.replace(b"1", rng.choice((b"1e999", b"NaN", b"1" * 5000, b"-0", b"1e-999")), 1)
    return raw


def anything(rng: random.Random, depth: int = 0) -> Any:
    """Some JSON."""
    kind = rng.randrange(8 if depth < _DEEPEST else 6)
    match kind:
        case 0:
            return rng.choice((None, True, False))
        case 1:
            return rng.choice((0, 1, -1, 7, 2**31, -(2**63), 2**64, 10**30))
        case 2:
            return rng.choice((0.0, -0.5, 1e-300, 1e300, 1.5))
        case 3 | 4:
            return nasty_text(rng, 60)
        case 5:
            return rng.choice(("", [], {}, "x" * 10_000))
        case 6:
            return [anything(rng, depth + 1) for _ in range(rng.randrange(5))]
    return {rng.choice((*_KEYWORDS, nasty_text(rng, 8))): anything(rng, depth + 1) for _ in range(rng.randrange(5))}


def schema(rng: random.Random, depth: int = 0) -> Any:
    """A JSON schema: sensible for the most part."""
    if rng.random() < 0.05:
        return rng.choice((True, False, {}, None, [], "x"))
    kind = rng.choice(_TYPES) if depth < _DEEPEST else "string"
    found: dict[str, Any] = {"type": kind} if rng.random() < 0.9 else {"type": [kind, rng.choice(_TYPES)]}
    if kind == "object":
        names = [rng.choice(("a", "b", "name", "", "ключ", nasty_text(rng, 20))) for _ in range(rng.randrange(5))]
        found["properties"] = {name: schema(rng, depth + 1) for name in names}
        if rng.random() < 0.6:
            found["required"] = names + (["missing"] if rng.random() < 0.2 else [])
        if rng.random() < 0.5:
            found["additionalProperties"] = rng.choice((False, True, {"type": "string"}))
    if kind == "array":
        found["items"] = schema(rng, depth + 1)
        if rng.random() < 0.4:
            found["minItems"] = rng.choice((0, 1, 5, 1000, 10**9, -1))
        if rng.random() < 0.4:
            found["maxItems"] = rng.choice((0, 1, 5, 1000, 10**9, 10**30))
    odd: Mapping[str, Make] = {
        "pattern": lambda r: r.choice(_PATTERNS),
        "format": lambda r: r.choice(_FORMATS),
        "enum": lambda r: [anything(r, 4) for _ in range(r.choice((0, 1, 3, 200)))],
        "const": lambda r: anything(r, 3),
        "anyOf": lambda r: [schema(r, depth + 2) for _ in range(r.randrange(4))],
        "oneOf": lambda r: [schema(r, depth + 2) for _ in range(r.randrange(3))],
        "allOf": lambda r: [schema(r, depth + 2) for _ in range(r.randrange(3))],
        "not": lambda r: schema(r, depth + 2),
        "$ref": lambda r: r.choice(("#", "#/$defs/a", "#/properties/a", "http://x/y", "#/$defs/missing", "")),
        "$defs": lambda r: {"a": r.choice(({"$ref": "#/$defs/a"}, schema(r, depth + 2)))},
        "minimum": lambda r: r.choice((0, -(10**30), 1e300, 5, 0.1)),
        "maximum": lambda r: r.choice((0, 10**30, -1e300, 4, 0.1)),
        "multipleOf": lambda r: r.choice((0, 3, 0.1, -2, 1e-30, 10**12)),
        "minLength": lambda r: r.choice((0, 1, 10_000, 10**9, -1)),
        "maxLength": lambda r: r.choice((0, 1, 10_000, 10**9, -1)),
        "patternProperties": lambda r: {r.choice(_PATTERNS): schema(r, depth + 2)},
        rng.choice(_KEYWORDS): lambda r: anything(r, 2),
    }
    for keyword in rng.sample(list(odd), rng.choice((0, 0, 1, 2, 3))):
        found[keyword] = odd[keyword](rng)
    return found


def _broken(rng: random.Random, body: Any) -> Any:
    """A copy with another value somewhere in it."""
    if isinstance(body, dict) and body and rng.random() < 0.9:
        key = rng.choice(list(body))
        return {**body, key: _broken(rng, body[key]) if rng.random() < 0.6 else anything(rng)}
    if isinstance(body, list) and body and rng.random() < 0.8:
        place = rng.randrange(len(body))
        return [*body[:place], _broken(rng, body[place]), *body[place + 1 :]]
    return anything(rng)


def _text(rng: random.Random) -> str:
    return "Why is the sky blue?" if rng.random() < 0.4 else nasty_text(rng, rng.choice((50, 500, 5000, 100_000)))


def _tool(rng: random.Random) -> dict[str, Any]:
    function = {
        "name": rng.choice(("look_up", "a", "", "x" * 65, nasty_text(rng, 12))),
        "description": nasty_text(rng, 50),
        "parameters": schema(rng),
    }
    return {"type": "function", "function": function}


def _content(rng: random.Random) -> Any:
    match rng.randrange(8):
        case 0:
            return [{"type": "text", "text": _text(rng)} for _ in range(rng.randrange(4))]
        case 1:
            url = rng.choice(("data:image/png;base64,AAAA", "data:,", "file:///etc/passwd", "http://127.0.0.1:1/x", ""))
            return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]
        case 2:
            return rng.choice((None, "", []))
    return _text(rng)


def _message(rng: random.Random) -> dict[str, Any]:
    role = rng.choice(("user", "user", "user", "system", "assistant", "tool", "developer", "function", "zzz"))
    message: dict[str, Any] = {"role": role, "content": _content(rng)}
    if role == "assistant" and rng.random() < 0.4:
        arguments = rng.choice(("{}", '{"a": 1}', "", "not JSON", "[1]", json.dumps(anything(rng))))
        call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": arguments}}
        message["tool_calls"] = [call] * rng.choice((1, 1, 3))
    if role == "tool":
        message["tool_call_id"] = rng.choice(("c1", "", "c2"))
    return message


def _response_format(rng: random.Random) -> Any:
    match rng.randrange(5):
        case 0:
            return {"type": rng.choice(("text", "json_object", "zzz"))}
        case 1:
            return anything(rng)
    return {"type": "json_schema", "json_schema": {"name": "a", "strict": rng.random() < 0.5, "schema": schema(rng)}}


def _sampling(rng: random.Random) -> dict[str, Any]:
    fields: Mapping[str, Make] = {
        "temperature": lambda r: r.choice((0, 0.7, 2, 100, 1e-9, -1)),
        "top_p": lambda r: r.choice((1, 0.5, 1e-9, 0, 2)),
        "top_k": lambda r: r.choice((0, 1, 40, 2**31 - 1, -1)),
        "min_p": lambda r: r.choice((0, 0.1, 1)),
        "seed": lambda r: r.choice((0, -1, 2**63 - 1, 2**63)),
        "presence_penalty": lambda r: r.choice((-2, 0, 2, 3)),
        "frequency_penalty": lambda r: r.choice((-2, 0, 2)),
        "repetition_penalty": lambda r: r.choice((1, 1e-9, 100, 0)),
        "stop": lambda r: r.choice((nasty_text(r, 10), [nasty_text(r, 10) for _ in range(r.randrange(6))], "", [""])),
        "logit_bias": lambda r: {
            str(r.choice((0, 1, 49151, 49152, -1, 10**12, "x"))): r.choice((-100, 100, 0, 1e9, "1")) for _ in range(3)
        },
        "n": lambda r: r.choice((1, 2, 4, 0, 1000)),
        "stream": lambda r: r.random() < 0.7,
        "logprobs": lambda r: r.choice((True, False, 5)),
        "top_logprobs": lambda r: r.choice((0, 5, 20, 21)),
        "ignore_eos": lambda r: r.random() < 0.5,
        "dry_multiplier": lambda r: r.choice((0, 0.8, 100)),
        "dry_base": lambda r: r.choice((1, 1.75, 100)),
        "dry_allowed_length": lambda r: r.choice((0, 2, 64)),
        "dry_sequence_breakers": lambda r: [nasty_text(r, 8) for _ in range(r.randrange(5))],
        "grammar": lambda r: r.choice((
            {"type": r.choice(("lark", "regex", "json_schema")), "value": r.choice((*_GRAMMARS, *_PATTERNS))},
            {"type": "json_schema", "value": schema(r)},
            r.choice(_GRAMMARS),
        )),
        "keep_alive": lambda r: r.choice((-1, "5m", "x", 10**9, "24h")),
    }  # fmt: skip
    return {key: fields[key](rng) for key in rng.sample(list(fields), rng.choice((0, 1, 2, 4)))}


def _chat(rng: random.Random) -> dict[str, Any]:
    body = {
        "model": "smollm2",
        "messages": [_message(rng) for _ in range(rng.choice((1, 1, 2, 4)))],
        "max_tokens": rng.choice((1, 3, 8, 16)),
        **_sampling(rng),
    }
    if rng.random() < 0.3:
        body["tools"] = [_tool(rng) for _ in range(rng.choice((0, 1, 1, 3, 40)))]
        named = {"type": "function", "function": {"name": rng.choice(("look_up", "missing"))}}
        body["tool_choice"] = rng.choice(("auto", "none", "required", named))
    if rng.random() < 0.35:
        body["response_format"] = _response_format(rng)
    if rng.random() < 0.1:
        body["chat_template_kwargs"] = {nasty_text(rng, 5): anything(rng)}
    if rng.random() < 0.1:
        body["prediction"] = {"type": "content", "content": _content(rng)}
    return body


def _ids(rng: random.Random) -> list[int]:
    return [rng.choice((0, 1, 17, 49151, 49152, -1, 2**31, rng.randrange(49152))) for _ in range(rng.randrange(30))]


def _completion(rng: random.Random) -> dict[str, Any]:
    prompt = rng.choice((_text(rng), [_text(rng) for _ in range(rng.randrange(4))], _ids(rng), [_ids(rng)]))
    body = {"model": "smollm2", "prompt": prompt, "max_tokens": rng.choice((1, 3, 8)), **_sampling(rng)}
    if rng.random() < 0.2:
        body |= {"suffix": _text(rng)}
    if rng.random() < 0.2:
        body |= {"echo": True, "best_of": rng.choice((1, 2, 0))}
    if rng.random() < 0.2:
        body["response_format"] = _response_format(rng)
    return body


def _responses(rng: random.Random) -> dict[str, Any]:
    items = [{"type": "message", "role": "user", "content": _text(rng)}, anything(rng)]
    body: dict[str, Any] = {"model": "smollm2", "input": rng.choice((_text(rng), items[:1], items))}
    body |= {"max_output_tokens": rng.choice((1, 16, 20)), "stream": rng.random() < 0.4, "store": rng.random() < 0.3}
    if rng.random() < 0.3:
        body["text"] = {"format": {"type": "json_schema", "name": "a", "schema": schema(rng)}}
    if rng.random() < 0.3:
        body["tools"] = [{"type": "function", "name": "look_up", "parameters": schema(rng)}]
    if rng.random() < 0.2:
        body["input"] = [*items[:1], *(_mcp_item(rng) for _ in range(rng.choice((1, 2, 4))))]
    if rng.random() < 0.1:
        body["tools"] = [_mcp_server(rng)]
        body["tool_choice"] = rng.choice(("auto", {"type": "mcp", "server_label": "a"}, {"type": "mcp"}))
    if rng.random() < 0.2:
        body["previous_response_id"] = nasty_text(rng, 20)
    return body


def _mcp_item(rng: random.Random) -> dict[str, Any]:
    kinds = ("mcp_call", "mcp_list_tools", "mcp_approval_request", "mcp_approval_response")
    item = {"type": rng.choice(kinds), "id": rng.choice(("mcp_0_a", "mcp_1_b", nasty_text(rng, 8)))}
    fields: dict[str, Make] = {
        "server_label": lambda r: r.choice(("a", nasty_text(r, 8))),
        "name": lambda r: r.choice(("b", nasty_text(r, 8))),
        "arguments": lambda r: r.choice(("{}", "{", nasty_text(r, 20))),
        "output": lambda r: r.choice((None, nasty_text(r, 20), anything(r))),
        "error": anything,
        "tools": lambda r: [r.choice(({"name": "b", "input_schema": schema(r)}, anything(r)))],
        "approval_request_id": lambda r: r.choice(("mcp_0_a", nasty_text(r, 8))),
        "approve": lambda r: r.choice((True, False, None, "yes")),
    }
    return item | {name: make(rng) for name, make in fields.items() if rng.random() < 0.7}


def _mcp_server(rng: random.Random) -> dict[str, Any]:
    fields: dict[str, Make] = {
        "server_label": lambda r: r.choice(("a", "", nasty_text(r, 8))),
        "server_url": lambda r: r.choice(("http://127.0.0.1:1/", "http://[::1", "file:///", nasty_text(r, 20))),
        "allowed_tools": lambda r: r.choice((["b"], {"tool_names": ["b"]}, {"read_only": True}, anything(r))),
        "require_approval": lambda r: r.choice(("always", "never", {"always": {"tool_names": []}}, anything(r))),
        "headers": lambda r: {nasty_text(r, 8): nasty_text(r, 8)},
        "authorization": lambda r: nasty_text(r, 8),
    }
    return {"type": "mcp", **{name: make(rng) for name, make in fields.items() if rng.random() < 0.6}}


def _anthropic(rng: random.Random) -> dict[str, Any]:
    roles = ("user", "assistant", "user", "system")
    messages = [{"role": rng.choice(roles), "content": _content(rng)} for _ in range(rng.choice((1, 2)))]
    body: dict[str, Any] = {"model": "smollm2", "max_tokens": rng.choice((1, 5)), "messages": messages}
    body["stream"] = rng.random() < 0.4
    if rng.random() < 0.3:
        body["tools"] = [{"name": "look_up", "input_schema": schema(rng)}]
        body["tool_choice"] = {"type": rng.choice(("auto", "any", "none", "tool"))}
    if rng.random() < 0.2:
        body["stop_sequences"] = [nasty_text(rng, 10)]
    if rng.random() < 0.2:
        use = {
            "type": "mcp_tool_use",
            "id": "a",
            "name": nasty_text(rng, 8),
            "server_name": "b",
            "input": anything(rng),
        }
        result = {"type": "mcp_tool_result", "tool_use_id": rng.choice(("a", "b")), "content": _content(rng)}
        messages.append({"role": "assistant", "content": rng.sample([use, result, use, result], rng.randrange(5))})
    if rng.random() < 0.1:
        body["mcp_servers"] = [{"type": "url", "url": nasty_text(rng, 20), "name": nasty_text(rng, 8)}]
        body["tools"] = [{"type": "mcp_toolset", "mcp_server_name": rng.choice(("b", "")), "configs": anything(rng)}]
    return body


def _ollama(rng: random.Random) -> dict[str, Any]:
    options = {"num_predict": rng.choice((1, 5)), "temperature": 0, **({"seed": 1} if rng.random() < 0.5 else {})}
    body: dict[str, Any] = {"model": "smollm2", "options": options, "stream": rng.random() < 0.5}
    if rng.random() < 0.4:
        body["format"] = rng.choice(("json", "", schema(rng)))
    return body


def _ollama_chat(rng: random.Random) -> dict[str, Any]:
    return {**_ollama(rng), "messages": [_message(rng)]}


def _ollama_generate(rng: random.Random) -> dict[str, Any]:
    body = {**_ollama(rng), "prompt": _text(rng)}
    return body | ({"raw": True} if rng.random() < 0.3 else {}) | ({"suffix": "x"} if rng.random() < 0.1 else {})


def _tokenize(rng: random.Random) -> dict[str, Any]:
    return {"model": "smollm2", "text": _text(rng), "add_special": rng.random() < 0.5, "content": _text(rng)}


def _detokenize(rng: random.Random) -> dict[str, Any]:
    return {"model": "smollm2", "tokens": _ids(rng)}


def _embeddings(rng: random.Random) -> dict[str, Any]:
    return {"model": "encoder", "input": rng.choice((_text(rng), [_text(rng)], _ids(rng)))}


def _rerank(rng: random.Random) -> dict[str, Any]:
    body = {"model": "ranker", "query": _text(rng), "documents": [_text(rng) for _ in range(rng.randrange(3))]}
    return body | ({"return_documents": True} if rng.random() < 0.5 else {})


# Those that a text passes through most of are there more than once.
_ENDPOINTS: Final[tuple[tuple[str, Make], ...]] = (
    ("/v1/chat/completions", _chat),
    ("/v1/chat/completions", _chat),
    ("/v1/chat/completions", _chat),
    ("/v1/completions", _completion),
    ("/v1/completions", _completion),
    ("/v1/responses", _responses),
    ("/v1/messages", _anthropic),
    ("/v1/messages/count_tokens", _anthropic),
    ("/api/chat", _ollama_chat),
    ("/api/generate", _ollama_generate),
    ("/tokenize", _tokenize),
    ("/v1/tokenize", _tokenize),
    ("/detokenize", _detokenize),
    ("/v1/embeddings", _embeddings),
    ("/api/embed", _embeddings),
    ("/v1/rerank", _rerank),
    ("/api/show", _ollama),
)
