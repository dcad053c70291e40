"""The transports over HTTP: those of the SDK, on a client that bounds what a server may send."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import httpx2
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from modelyard.mcp.transports.lines import MAX_MESSAGE_BYTES
from modelyard.version import __version__

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams

CONNECT_S: Final = 15.0
_REQUEST_S: Final = 30.0
_END_S: Final = 2.0
# Events may be hours apart; a dead connection is found by asking the server.
_SILENCE_S: Final = 7 * 86_400.0
_REFUSALS: Final = (401, 403, 407)
_EVENTS: Final = "text/event-stream"


class TooLong(httpx2.StreamError):
    """A server sends more than is read. The SDK makes an error of it for the one request."""


class AccessRefused(httpx2.HTTPError):
    """A server refuses the access; the session is of no use then."""


class _BoundedBody(httpx2.AsyncByteStream):
    """A body that fails once it is longer than a message may be."""

    def __init__(self, body: httpx2.AsyncByteStream) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._body:
            size += len(piece)
            if size > MAX_MESSAGE_BYTES:
                raise TooLong(f"the server's answer has more than {MAX_MESSAGE_BYTES // 2**20} MiB")
            yield piece

    async def aclose(self) -> None:
        """Close the body."""
        await self._body.aclose()


async def _hasten_end(request: httpx2.Request) -> None:
    """Bound the request that ends a session: other requests are bounded by those who make them."""
    if request.method == "DELETE":
        request.extensions["timeout"] = httpx2.Timeout(_END_S).as_dict()


async def _bound(response: httpx2.Response) -> None:
    """Bound the body of an answer.

    Raises:
        TooLong: it is compressed, though that was not asked for: it could unfold to any size.
        AccessRefused: the server takes no request with these headers.
    """
    if response.status_code in _REFUSALS:
        await response.aclose()
        raise AccessRefused(f"it refuses the access (HTTP status {response.status_code})")
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise TooLong("the server sends compressed answers, which were not asked for")
    # The SDK bounds the events of a stream, which itself has no end.
    is_stream = response.headers.get("content-type", "").lower().startswith(_EVENTS)
    if not is_stream and isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _BoundedBody(response.stream)


def http_client(
    headers: Mapping[str, str] | None, inner: httpx2.AsyncBaseTransport | None = None
) -> httpx2.AsyncClient:
    """Return the HTTP client of one server.

    Args:
        headers: sent with each request.
        inner: sends the requests; None: over the network, through the proxies of the environment.
    """
    return httpx2.AsyncClient(
        headers={"accept-encoding": "identity", "user-agent": f"modelyard/{__version__}", **(headers or {})},
        timeout=httpx2.Timeout(_REQUEST_S, connect=CONNECT_S, read=None),
        transport=inner,
        trust_env=inner is None,
        event_hooks={"request": [_hasten_end], "response": [_bound]},
    )


@asynccontextmanager
async def http_transport(
    url: str, headers: Mapping[str, str], inner: httpx2.AsyncBaseTransport | None = None
) -> AsyncIterator[TransportStreams]:
    """Enter with the streams of messages from and to a server of streamable HTTP.

    Args:
        url: its endpoint.
        headers: sent with each request.
        inner: as for ``http_client``.
    """
    async with (
        http_client(headers, inner) as client,
        streamable_http_client(url, http_client=client, max_sse_event_size=MAX_MESSAGE_BYTES) as streams,
    ):
        yield streams


@asynccontextmanager
async def sse_transport(url: str, headers: Mapping[str, str]) -> AsyncIterator[TransportStreams]:
    """Enter with the streams of messages from and to a server of the older HTTP with server-sent events."""

    def make_client(
        headers: dict[str, str] | None = None, timeout: httpx2.Timeout | None = None, auth: Any = None
    ) -> httpx2.AsyncClient:
        client = http_client(headers)
        if timeout is not None:
            client.timeout = timeout
        client.auth = auth
        return client

    async with sse_client(
        url,
        headers=dict(headers),
        timeout=CONNECT_S,
        sse_read_timeout=_SILENCE_S,
        httpx_client_factory=make_client,
    ) as streams:
        yield streams
