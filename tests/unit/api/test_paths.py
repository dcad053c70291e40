"""Paths that clients get nearly right, and HEAD."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from modelyard.api.errors.responses import suggested_path
from modelyard.api.middleware.head import ResponseHead

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
