"""POST, GET and DELETE /mcp: MCP over streamable HTTP."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from modelyard.api.mcp.sessions import MAX_MESSAGE_BYTES
from modelyard.api.middleware.authorization import needs, takes_body
from modelyard.api.services import Services

if TYPE_CHECKING:
    from modelyard.api.mcp.transport import Transport


class McpEndpoint:
    """The endpoint of one application. The SDK is imported, and serves, from the first request on."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._starting: asyncio.Task[Transport] | None = None

    @staticmethod
    def of(http: HttpRequest) -> McpEndpoint:
        """The endpoint of the application that ``http`` was sent to."""
        endpoint: McpEndpoint = http.app.state.mcp
        return endpoint

    @property
    def spare_streams(self) -> int:
        """How many streams of events are open, less the one observer of the yard that serves them all."""
        return 0 if self.started is None else self.started.spare_streams

    @property
    def started(self) -> Transport | None:
        """What serves the requests; None: no request has come, or it could not be started."""
        starting = self._starting
        if starting is None or not starting.done() or starting.cancelled() or starting.exception() is not None:
            return None
        return starting.result()

    async def transport(self) -> Transport:
        """Return what serves the requests, which the first call starts."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._start(), name="start MCP")
        return await asyncio.shield(self._starting)

    async def aclose(self) -> None:
        """End all sessions. Idempotent."""
        if self._starting is not None:
            await asyncio.wait((self._starting,))
            if self.started is not None:
                await self.started.aclose()

    async def _start(self) -> Transport:
        kind = await asyncio.to_thread(_import_transport)
        transport = kind(self._services)
        await transport.start()
        return transport


def _import_transport() -> type[Transport]:
    from modelyard.api.mcp.transport import Transport

    return Transport


class _McpResponse(Response):
    """The answer of the protocol."""

    def __init__(self, transport: Transport) -> None:
        super().__init__()
        self._transport = transport

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._transport.handle(scope, receive, send)


router = APIRouter()


@router.api_route("/mcp", methods=["GET", "POST", "DELETE"], include_in_schema=False)
@needs(None)
@takes_body(MAX_MESSAGE_BYTES)
async def serve_mcp(http: HttpRequest) -> Response:
    """Speak MCP. Each tool and resource needs a scope of its own."""
    return _McpResponse(await McpEndpoint.of(http).transport())
