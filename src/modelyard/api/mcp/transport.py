"""Streamable HTTP on the SDK's session manager: whose session a request belongs to, its bounds, and its end.

This module imports the SDK; see ``protocol``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.types import Message, Receive, Scope, Send

from modelyard.api.errors.rendering import NotServed
from modelyard.api.mcp.calls import Calls
from modelyard.api.mcp.changes import ModelChanges
from modelyard.api.mcp.notices import Notices
from modelyard.api.mcp.protocol import SESSION_HEADER, McpServer
from modelyard.api.mcp.sessions import MAX_MESSAGE_BYTES, Session, Sessions
from modelyard.api.request_context import RequestContext
from modelyard.api.services import Services
from modelyard.api.serving.json_body import check_depth, check_size
from modelyard.api.serving.json_route import read_pieces
from modelyard.api.serving.request_body import RequestBody

REAP_S: Final = 60.0
"""How often idle sessions are looked for."""

_VERSION_HEADER: Final = b"mcp-protocol-version"
_SESSION_HEADER: Final = SESSION_HEADER.encode()


class Transport:
    """Serves the MCP server of an application over HTTP. Use it on one event loop.

    Args:
        services: of the application.
        clock: returns monotonic seconds.

    Attributes:
        sessions: those that are open.
    """

    def __init__(self, services: Services, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.sessions = Sessions()
        self._changes = ModelChanges(services.yard, self._dismiss)
        self._server = McpServer(services, self.sessions, self._changes)
        self._notices = Notices(self.sessions, self._server.bus)
        # The bounds of sessions are those of ``Sessions``.
        self._manager = StreamableHTTPSessionManager(
            self._server, max_request_body_size=MAX_MESSAGE_BYTES, max_sessions=None, session_idle_timeout=None
        )
        # The open streams of events: each ends when its future is done.
        self._streams: set[asyncio.Future[None]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    @property
    def spare_streams(self) -> int:
        """How many streams of events are open, less the one observer of the yard that serves them all."""
        return len(self._streams) + self._server.listener_count - self._changes.is_following

    async def start(self) -> None:
        """Start to serve sessions."""
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._running = asyncio.create_task(self._run(started), name="MCP sessions")
        await asyncio.wait((started, self._running), return_when=asyncio.FIRST_COMPLETED)
        if self._running.done():
            await self._running

    async def aclose(self) -> None:
        """End all sessions. Idempotent."""
        self._dismiss()
        self._stopping.set()
        await self._changes.aclose()
        await self._notices.aclose()
        if self._running is not None:
            await asyncio.gather(self._running, return_exceptions=True)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. What is raised is raised before anything is sent.

        Raises:
            InvalidRequest, RequestTooLarge, ServerOverloaded: as ``RequestBody.parsed``.
            NotServed: the request names a session that there is not.
            TooManyConnections: there is no place for another session.
        """
        headers = dict(scope["headers"])
        if scope["method"] == "POST":
            receive = await _checked_body(scope, receive)
        version = headers.get(_VERSION_HEADER)
        if version is not None and version.decode("latin-1") not in HANDSHAKE_PROTOCOL_VERSIONS:
            # These versions have no sessions.
            await self._pass_on(scope, receive, send)
        elif (sent := headers.get(_SESSION_HEADER)) is not None:
            await self._in_session(sent.decode("latin-1"), scope, receive, send)
        else:
            await self._opening(scope, receive, send)

    async def _in_session(self, sent: str, scope: Scope, receive: Receive, send: Send) -> None:
        session = self.sessions.find(sent, RequestContext.of(scope).caller.owner)
        if session is None:
            raise NotServed("There is no such session: it has ended, or belongs to another API key.", 404)
        if scope["method"] == "DELETE":
            self.sessions.remove(session)
        session.in_flight += 1
        try:
            if scope["method"] == "GET":
                await self._stream(scope, receive, send)
            else:
                await self._pass_on(scope, receive, send)
        finally:
            session.in_flight -= 1
            session.used_at = self._clock()
            if RequestContext.of(scope).status == 404:
                # The SDK has ended it, after an error of its own.
                self.sessions.remove(session)

    async def _opening(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request without a session: one is opened for it, and closed again if it does not initialize it."""
        victim = self.sessions.reserve()
        session: Session | None = None

        async def noted(message: Message) -> None:
            nonlocal session
            if message["type"] == "http.response.start" and message["status"] == 200:
                identifier = dict(message["headers"]).get(_SESSION_HEADER)
                if identifier is not None:
                    owner = RequestContext.of(scope).caller.owner
                    session = Session(identifier.decode("latin-1"), owner, self._clock(), in_flight=1)
                    self.sessions.add(session)
            await send(message)

        try:
            if victim is not None:
                # To its end, also where this request is cancelled: nothing else knows of this session any more.
                closing = asyncio.create_task(self._close(victim))
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
                await asyncio.shield(closing)
            await self._pass_on(scope, receive, noted)
        finally:
            if session is None:
                self.sessions.release()
            else:
                session.in_flight -= 1

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        calls = Calls(scope)
        try:
            await self._manager.handle_request(scope, receive, send)
        finally:
            calls.end()

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request for a stream of events, which also ends when the server stops."""
        dismissed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        is_open = False

        async def received() -> Message:
            receiving = asyncio.ensure_future(receive())
            try:
                await asyncio.wait((receiving, dismissed), return_when=asyncio.FIRST_COMPLETED)
                return receiving.result() if receiving.done() else {"type": "http.disconnect"}
            finally:
                receiving.cancel()

        async def noted(message: Message) -> None:
            nonlocal is_open
            is_open = message["type"] == "http.response.start" or bool(message.get("more_body"))
            await send(message)

        self._streams.add(dismissed)
        try:
            await self._pass_on(scope, received, noted)
        finally:
            self._streams.discard(dismissed)
        if is_open:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _dismiss(self) -> None:
        """End all streams of events, which would go on for ever."""
        for dismissed in self._streams:
            if not dismissed.done():
                dismissed.set_result(None)
        self._server.listening.close()

    async def _run(self, started: asyncio.Future[None]) -> None:
        async with self._manager.run():
            with self._changes.heard(self._notices.on_change):
                started.set_result(None)
                while not await self._stops_within(REAP_S):
                    for session in self.sessions.take_expired(self._clock()):
                        await self._close(session)

    async def _stops_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

    async def _close(self, session: Session) -> None:
        """End a session as its client would."""

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(_: Message) -> None:
            """Drop the answer."""

        headers = [(_SESSION_HEADER, session.id.encode("latin-1"))]
        scope: Scope = {"type": "http", "method": "DELETE", "path": "/mcp", "query_string": b"", "headers": headers}
        await self._manager.handle_request(scope, receive, send)


async def _checked_body(scope: Scope, receive: Receive) -> Receive:
    """Read the body, and return a function that receives it again and then what follows.

    Raises:
        InvalidRequest, RequestTooLarge, ServerOverloaded: as ``RequestBody.parsed``.
    """
    pieces = await read_pieces(receive)
    body = await RequestBody.of(scope).parsed(pieces, _checked)
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> Message:
        return waiting.pop() if waiting else await receive()

    return received


def _checked(body: bytes) -> bytes:
    check_size(body)
    check_depth(body)
    return body
