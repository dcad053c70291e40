"""A body that nests too deeply to be written again is refused on every path, and what is taken can be returned."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from modelyard.api.serving.json_body import MAX_DEPTH, parse_json
from modelyard.errors import InvalidRequest
from support.scripted_server import ScriptedServer, scripted_server


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[ScriptedServer]:
    async with scripted_server(tmp_path) as server:
        yield server


def nested(depth: int) -> str:
    """JSON of objects and lists within one another; Python's own encoder does not nest as deep."""
    return '{"type":[' * (depth // 2) + "1" + "]}" * (depth // 2)


TURNS = [{"role": "user", "content": "Hi"}]
TOOL = {"name": "f", "description": "", "parameters": {}, "input_schema": {}, "type": "function", "function": {}}
SMALLEST: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": TURNS},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/responses": {"input": "Hi"},
    "/v1/responses/input_tokens": {"input": "Hi"},
    "/v1/responses/compact": {"input": "Hi"},
    "/v1/conversations": {},
    "/v1/messages": {"messages": TURNS, "max_tokens": 4},
    "/v1/messages/count_tokens": {"messages": TURNS},
    "/v1/embeddings": {"input": "Hi"},
    "/v1/rerank": {"query": "Hi", "documents": ["Hi"]},
    "/v1/fim/completions": {"prompt": "Hi"},
    "/api/chat": {"messages": TURNS, "stream": False},
    "/api/generate": {"prompt": "Hi", "stream": False},
    "/api/embed": {"input": "Hi"},
    "/api/show": {"model": "m"},
    "/completion": {"prompt": "Hi"},
    "/infill": {"input_prefix": "a", "input_suffix": "b"},
    "/apply-template": {"messages": TURNS},
    "/models/load": {"model": "m"},
    "/models/unload": {"model": "m"},
}
# Where a body may hold any value.
PLACES = {
    "an extra field": lambda value: {"note": value},
    "a prompt": lambda value: {"prompt": value, "input": value, "content": value, "query": value},
    "the metadata": lambda value: {"metadata": {"a": value}, "options": {"a": value}},
    "a tool": lambda value: {"tools": [{**TOOL, "parameters": value, "function": {"name": "f", "parameters": value}}]},
    "a format": lambda value: {"response_format": value, "format": value, "text": {"format": value}},
    "an item": lambda value: {"input": [{"role": "user", "content": "Hi", "note": value}], "items": [value]},
    "a message": lambda value: {"messages": [{"role": "user", "content": value}]},
}


async def test_a_body_that_nests_deeply_is_never_the_servers_error(server: ScriptedServer) -> None:
    headers = {"content-type": "application/json"}
    for (path, smallest), (name, place) in product(SMALLEST.items(), PLACES.items()):
        body = json.dumps({"model": "m", **smallest, **place("deep")})
        for depth in (MAX_DEPTH - 10, 260, 1000):
            content = body.replace('"deep"', nested(depth))
            status = (await server.client.post(path, content=content, headers=headers)).status_code
            assert status < 500, f"{path}, {name}, {depth} levels"


def test_brackets_in_texts_do_not_nest() -> None:
    text = '\\"[{' * 1000
    assert parse_json(json.dumps([text, text]).encode()) == [text, text]


def test_brackets_beside_one_another_do_not_nest() -> None:
    rows = [[[each]] for each in range(1000)]
    assert parse_json(json.dumps(rows).encode()) == rows


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_the_deepest_body_that_is_taken_has_the_most_levels(opening: bytes) -> None:
    closing = b"]" if opening == b"[" else b"}"
    parse_json(opening * MAX_DEPTH + b"1" + closing * MAX_DEPTH)
    with pytest.raises(InvalidRequest, match="within one another"):
        parse_json(opening * (MAX_DEPTH + 1) + b"1" + closing * (MAX_DEPTH + 1))


def test_brackets_that_close_nothing_are_not_counted() -> None:
    with pytest.raises(json.JSONDecodeError):
        parse_json(b"[]," * (MAX_DEPTH + 1) + b"]" * 5_000_000)
