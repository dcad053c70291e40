"""The doors themselves, under no server."""

from __future__ import annotations

import hmac
from typing import Any

import pytest

from modelyard.api.middleware.security import RequireKey
from modelyard.api.request_context import RequestContext
from modelyard.config import AccessKey
from modelyard.config.key_rules import digest_of

KEYS = [AccessKey(name, digest_of(name), None, frozenset()) for name in ("first", "second", "third")]


class Door:
    """An application behind one door; it notes who came through, and what was sent back."""

    def __init__(self, door: Any) -> None:
        self.let_in = 0
        self.sent: list[dict[str, Any]] = []
        self._app = door(self._inside)

    async def come(self, kind: str = "http", path: str = "/v1/models", **headers: str) -> None:
        pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": kind, "method": "GET", "path": path, "headers": pairs}
        RequestContext(scope)
        await self._app(scope, self._receive, self._send)

    async def _inside(self, *_: Any) -> None:
        self.let_in += 1

    async def _receive(self) -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


@pytest.mark.parametrize("sent", ["first", "second", "third", "fourth"])
async def test_every_key_is_compared_whichever_is_right(sent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    genuine = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return genuine(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    await Door(lambda app: RequireKey(app, KEYS)).come(authorization=f"Bearer {sent}")
    assert compared == [key.digest for key in KEYS]


async def test_a_websocket_without_a_key_is_closed() -> None:
    door = Door(lambda app: RequireKey(app, KEYS))
    await door.come("websocket", path="/health")
    assert (door.let_in, [message["type"] for message in door.sent]) == (0, ["websocket.close"])
    await door.come("websocket", authorization="Bearer first")
    assert door.let_in == 1


def test_a_key_shows_neither_itself_nor_its_digest() -> None:
    assert digest_of("first").hex() not in repr(KEYS[0])
    assert "digest" not in repr(KEYS[0])
