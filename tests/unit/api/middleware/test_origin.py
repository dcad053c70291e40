"""What web pages may have a browser send."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.api.middleware.origin import CheckOrigin
from modelyard.api.request_context import RequestContext

OWN = "http://localhost:1234"
CHAT = "https://chat.example"


async def come(
    *headers: tuple[str, str],
    method: str = "POST",
    origins: tuple[str, ...] = (),
    host: str = "localhost:1234",
    scheme: str = "http",
    path: str = "/v1/config/reload",
    kind: str = "http",
) -> bool:
    """Whether a request with those headers comes through; else it is told of the setting."""
    came, sent = [], []

    async def inside(*_: Any) -> None:
        came.append(True)

    async def send(message: Any) -> None:
        sent.append(message)

    pairs = [(name.encode(), value.encode()) for name, value in (("host", host), *headers)]
    scope = {"type": kind, "method": method, "path": path, "scheme": scheme, "headers": pairs}
    RequestContext(scope)
    await CheckOrigin(inside, origins)(scope, inside, send)  # type: ignore[arg-type]
    if not came and kind == "http":
        assert sent[0]["status"] == 403
        assert b"origin_not_allowed" in sent[1]["body"]
        assert b"cors_origins" in sent[1]["body"]
    return bool(came)


def origin(value: str) -> tuple[str, str]:
    return "origin", value


def site(value: str) -> tuple[str, str]:
    return "sec-fetch-site", value


async def test_what_no_page_sent_comes_through() -> None:
    assert await come()
    assert await come(site("none"))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "FETCH"])
@pytest.mark.parametrize(
    "headers",
    [
        [origin("https://evil.example")],
        [origin("null")],
        [origin("")],
        [origin("http://localhost:8080")],
        [origin("http://localhost")],
        [origin("http://localhost:1234.evil.example")],
        [origin("http://localhost:1234@evil.example")],
        [origin("http://localhost:1234/")],
        [origin("file://")],
        [origin("chrome-extension://abcdef")],
        [origin(f"{OWN} https://evil.example")],
        [origin(OWN), origin("https://evil.example")],
        [origin("https://evil.example"), origin(OWN)],
        [site("cross-site")],
        [site("Cross-Site")],
        [site("same-site")],
        [origin(OWN), site("cross-site")],
        [site("same-origin"), site("cross-site")],
    ],
)
async def test_what_a_foreign_page_sends_is_refused(method: str, headers: list[tuple[str, str]]) -> None:
    assert not await come(*headers, method=method)


@pytest.mark.parametrize("headers", [[origin(OWN)], [origin(OWN), site("same-origin")], [site("same-origin")]])
async def test_the_servers_own_page_may_use_it(headers: list[tuple[str, str]]) -> None:
    assert await come(*headers)


@pytest.mark.parametrize(
    ("page", "host", "scheme", "is_own"),
    [
        ("http://models.lan", "models.lan", "http", True),
        ("http://models.lan", "models.lan:80", "http", True),
        ("https://models.lan", "models.lan", "https", True),
        # A proxy speaks TLS, and says nothing of it.
        ("https://models.lan", "models.lan", "http", True),
        ("http://models.lan", "models.lan", "https", False),
        ("https://models.lan", "models.lan:80", "https", False),
        ("http://[::1]:1234", "[::1]:1234", "http", True),
        ("HTTP://Models.LAN", "models.lan", "http", True),
    ],
)
async def test_a_pages_origin_is_the_servers_by_its_host(page: str, host: str, scheme: str, is_own: bool) -> None:
    assert await come(origin(page), host=host, scheme=scheme) is is_own


async def test_two_hosts_have_no_page_in_common() -> None:
    assert not await come(origin(OWN), ("host", "127.0.0.1:1234"))


async def test_configured_origins_may_use_it_from_anywhere() -> None:
    for headers in ([origin(CHAT)], [origin(CHAT), site("cross-site")], [origin(CHAT), site("same-site")]):
        assert await come(*headers, origins=(CHAT,))
        assert await come(*headers, origins=("*",))
    assert not await come(origin("https://evil.example"), origins=(CHAT,))
    assert not await come(origin(CHAT), origin("https://evil.example"), origins=(CHAT,))
    assert not await come(site("cross-site"), origins=(CHAT,))
    assert not await come(origin("null"), origins=(CHAT,))


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_looking_is_free(method: str) -> None:
    assert await come(origin("https://evil.example"), site("cross-site"), method=method)


@pytest.mark.parametrize(
    "path", ["/v1/models/events", "/models/sse", "/v1/agent/approvals", "/v1/agent/approvals/events", "/mcp"]
)
async def test_what_is_held_open_is_not_for_foreign_pages(path: str) -> None:
    assert not await come(site("cross-site"), method="GET", path=path)
    assert await come(site("same-origin"), method="GET", path=path)


async def test_a_connection_of_a_websocket_is_not_for_foreign_pages() -> None:
    assert not await come(origin("https://evil.example"), kind="websocket")
