"""Opens the transport that the configuration of a server asks for."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from modelyard.config import McpServer

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams


def transport_of(server: McpServer) -> AbstractAsyncContextManager[TransportStreams]:
    """Return a transport to a server, not yet entered. The SDK, and what it imports, is imported here."""
    from modelyard.mcp.transports.http import http_transport, sse_transport
    from modelyard.mcp.transports.stdio import stdio_transport
    from modelyard.mcp.transports.websocket import websocket_transport

    headers = _headers_of(server)
    match server.effective_transport:
        case "stdio":
            return stdio_transport(server)
        case "http":
            return http_transport(server.url or "", headers)
        case "sse":
            return sse_transport(server.url or "", headers)
        case "websocket":
            return websocket_transport(server.url or "", headers)


def _headers_of(server: McpServer) -> dict[str, str]:
    """Return the HTTP headers that a server is sent."""
    headers = {name: value.get_secret_value() for name, value in server.headers}
    if server.bearer_token is not None:
        headers["Authorization"] = f"Bearer {server.bearer_token.get_secret_value()}"
    return headers
