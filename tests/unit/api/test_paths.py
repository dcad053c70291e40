"""Paths that clients get nearly right, and HEAD."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Scope

from modelyard.api.errors.rendering import suggested_path
from modelyard.api.middleware.head import ResponseHead
from modelyard.api.middleware.short_paths import ShortPaths
from support.scripted_app import scripted_app

SERVED = {"/v1/chat/completions", "/v1/messages", "/api/chat", "/health"}


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/messages", "/v1/messages"),
        ("//v1/chat/completions", "/v1/chat/completions"),
        ("/v1/api/chat", "/api/chat"),
        ("/v1/health", "/health"),
        ("/v1/chat", None),
        ("/elsewhere", None),
    ],
)
def test_a_base_url_with_too_many_or_too_few_v1_is_seen_through(path: str, meant: str | None) -> None:
    assert suggested_path(path, SERVED) == meant


async def test_head_is_answered_as_get_up_to_the_head_even_of_a_stream_without_end() -> None:
    ended = asyncio.Event()

    async def stream(scope: Any, _receive: Any, send: Any) -> None:
        assert scope["method"] == "GET"
        scope["route"] = "its route"
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": b"more", "more_body": True})
                await asyncio.sleep(0)
        finally:
            ended.set()

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "HEAD"}
    async with asyncio.timeout(5):
        await ResponseHead(stream)(scope, None, send)  # type: ignore[arg-type]
    assert ended.is_set()
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert (sent[1]["body"], sent[1]["more_body"]) == (b"", False)
    assert scope == {"type": "http", "method": "HEAD", "route": "its route"}


async def test_head_fails_where_get_fails() -> None:
    async def broken(_scope: Any, _receive: Any, _send: Any) -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await ResponseHead(broken)({"type": "http", "method": "HEAD"}, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sent", "reached"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/models/org/m", "/v1/models/org/m"),
        ("/chat/count", "/chat/count"),
        ("/models", "/models"),
        ("/rerank", "/rerank"),
        ("/nothing", "/nothing"),
        ("/", "/"),
    ],
)
async def test_only_paths_that_mean_nothing_else_get_a_v1(sent: str, reached: str) -> None:
    paths = (
        "/v1/chat/completions",
        "/v1/models/{model_id:path}",
        "/v1/rerank",
        "/chat/count",
        "/models",
        "/rerank",
        "/",
    )
    found = []

    async def app(scope: Scope, _receive: Any, _send: Any) -> None:
        found.append(scope["path"])

    await ShortPaths(app, paths)({"type": "http", "path": sent}, None, None)  # type: ignore[arg-type]
    assert found == [reached]


async def test_endpoints_are_reached_without_v1(tmp_path: Path) -> None:
    turns = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    async with scripted_app(tmp_path, lambda _submit: ["Hello"]) as client:
        for path, body in (
            ("/chat/completions", turns),
            ("/completions", {"prompt": "Hi"}),
            ("/responses", {"input": "Hi"}),
            ("/messages", turns),
        ):
            answer = await client.post(path, json=body)
            assert (answer.status_code, "Hello" in answer.text) == (200, True), path
        stored = (await client.post("/responses", json={"input": "Hi"})).json()["id"]
        assert (await client.get(f"/responses/{stored}")).json()["id"] == stored
        assert (await client.get("/models")).json()["data"][0]["id"] == "m"
        refused = await client.post("/messages", json={"messages": []})
        assert (refused.status_code, refused.json()["type"]) == (400, "error")
        assert refused.headers["request-id"]
        assert (await client.post("/messages/batches", json={})).json()["error"]["type"] == "not_found_error"


async def test_a_page_of_a_configured_origin_may_send_any_header(tmp_path: Path) -> None:
    names = "x-stainless-os,anthropic-version,anthropic-dangerous-direct-browser-access,openai-organization"
    asked = {
        "origin": "https://chat.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": names,
        "access-control-request-private-network": "true",
    }
    async with scripted_app(tmp_path, lambda _submit: ["Hello"], cors_origins=["https://chat.example"]) as client:
        granted = await client.options("/v1/messages", headers=asked)
        refused = await client.options("/v1/messages", headers={**asked, "origin": "https://evil.example"})
    assert granted.status_code == 200
    assert granted.headers["access-control-allow-headers"] == names
    assert granted.headers["access-control-allow-private-network"] == "true"
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers
