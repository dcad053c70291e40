"""What is known of a request only after the head of its answer is in the log."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from modelyard.api.middleware.http_metrics import HttpMetrics
from modelyard.api.middleware.telemetry import Telemetry
from modelyard.api.request_context import RequestContext
from modelyard.config import Server

LOGGER = "modelyard.api.middleware.telemetry"


async def answered(before: list[str], after: list[str]) -> dict[bytes, bytes]:
    """Return the headers of an answer to a request, parts of which are ignored before and after its head."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        context = RequestContext.of(scope)
        context.ignore(before)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        context.note(after)
        await send({"type": "http.response.body", "body": b""})

    heads: list[dict[bytes, bytes]] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            heads.append(dict(message["headers"]))

    scope = {"type": "http", "method": "POST", "path": "/v1/x", "headers": [(b"x-request-id", b"req-1")]}
    await Telemetry(app, Server(), HttpMetrics())(scope, receive, send)
    return heads[0]


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what Telemetry has logged, without the lines of the access log about the same requests."""
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


async def test_what_is_known_after_the_head_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, LOGGER):
        head = await answered(["user"], ["schema (not)"])
    assert head[b"x-modelyard-ignored"] == b"user"
    assert lines(caplog) == [
        "Request req-1 was answered before this was known: x-modelyard-ignored: user, schema (not)"
    ]


async def test_what_the_head_said_is_not_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, LOGGER):
        head = await answered(["user"], [])
    assert head[b"x-modelyard-ignored"] == b"user"
    assert lines(caplog) == []
