"""The connection to one MCP server, which is kept up: it is opened again, with back-off, whenever it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from modelyard.agent.tools import ReportProgress, ToolResult
from modelyard.config import McpServer
from modelyard.mcp.backoff import delay_s
from modelyard.mcp.bounded_call import bounded_call
from modelyard.mcp.limits import CallLimits
from modelyard.mcp.lost import SessionLost
from modelyard.mcp.reasons import reason_of
from modelyard.mcp.results import failed
from modelyard.mcp.secrets import secrets_of
from modelyard.mcp.session import ListedTool, Session, open_session
from modelyard.mcp.transports import child
from modelyard.mcp.transports.open import transport_of

logger = logging.getLogger(__name__)

State = Literal["connecting", "connected", "failed", "disabled"]

CONNECT_S: Final = 120.0
"""Seconds for the handshake and the list of tools: npx and uvx first download what they run."""
CLOSE_S: Final = child.CLOSE_S + 1
"""Seconds for the end of a session, with that of a program."""
CHECK_S: Final = 30.0
"""A server that no call runs on is asked for a sign of life this often."""
STEADY_S: Final = 30.0
"""A connection that lasted this long begins the back-off anew."""
RECONNECT_S: Final = 10.0
"""How long a call waits for a connection that was lost a moment ago."""
RELIST_S: Final = 1.0
"""Lists of tools are read again no faster, however often a server says that they change."""


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """The state of a server.

    Attributes:
        name: of the server.
        transport: "stdio", "http", "sse" or "websocket".
        state: "connecting", "connected", "failed" until an attempt succeeds, or "disabled" by the configuration.
        reason: why it is not connected; "" where it is.
        tools: number of its tools that models may call.
        title: what the server calls itself; "" where that is not known.
        connect_s: how long the last connect has taken; None: it has not succeeded yet.
        retry_s: seconds until the next attempt, 0 while it is under way; None: there is none to come.
    """

    name: str
    transport: str
    state: State
    reason: str = ""
    tools: int = 0
    title: str = ""
    connect_s: float | None = None
    retry_s: float | None = None


class Connection:
    """Keeps one server connected. Use it on one event loop.

    Args:
        server: how it is reached.
        limits: bounds of its calls.
        on_change: is called when its tools, or its state, have changed.

    Attributes:
        tools: those that models may call, while it is connected.
    """

    def __init__(self, server: McpServer, limits: CallLimits, on_change: Callable[[], None]) -> None:
        self.server = server
        self.tools: tuple[ListedTool, ...] = ()
        self._limits, self._on_change = limits, on_change
        self._state: State = "connecting" if server.enabled else "disabled"
        self._reason, self._title = "", ""
        self._secrets = secrets_of(server)
        self._connect_s: float | None = None
        self._retry_at: float | None = None
        self._session: Session | None = None
        self._connected_at: float | None = None
        self._settled = asyncio.Event()
        self._lost = asyncio.Event()
        self._loss = ""
        self._calls = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to connect, unless the configuration disables the server. Idempotent."""
        if self.server.enabled and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=f"MCP server {self.server.name}")

    async def aclose(self) -> None:
        """Close the connection, and end the server's program. Bounded, and idempotent."""
        if self._task is None:
            return
        self._task.cancel()
        _, pending = await asyncio.wait((self._task,), timeout=CLOSE_S)
        for task in pending:
            # What is left then is the end of a session over the network.
            task.cancel()
            await asyncio.wait((task,), timeout=CLOSE_S)
        self._retry_at = None
        self._end_session("failed", "it was closed")

    async def wait_settled(self) -> None:
        """Return when the first attempt to connect has succeeded or failed."""
        if self.server.enabled:
            await self._settled.wait()

    @property
    def is_connected(self) -> bool:
        """Whether models may call its tools now."""
        return self._session is not None

    def status(self) -> ServerStatus:
        """Return the state of the server."""
        retry_s = None
        if self._retry_at is not None and self._state == "failed":
            retry_s = max(0.0, self._retry_at - asyncio.get_running_loop().time())
        return ServerStatus(
            self.server.name,
            self.server.effective_transport,
            self._state,
            self._reason,
            len(self.tools),
            self._title,
            self._connect_s,
            retry_s,
        )

    async def call(self, own_name: str, arguments: Mapping[str, Any], report: ReportProgress) -> ToolResult:
        """Call a tool within the bounds of the server. What goes wrong is a result with ``is_error``."""
        return await self._bounded(lambda session: session.call(own_name, arguments, report, self._limits.max_result))

    async def read_resource(self, uri: str) -> ToolResult:
        """Read a resource within the bounds of the server. What goes wrong is a result with ``is_error``."""
        return await self._bounded(lambda session: session.read_resource(uri, self._limits.max_result))

    async def _bounded(self, work: Callable[[Session], Awaitable[ToolResult]]) -> ToolResult:
        self._calls += 1
        try:
            return await bounded_call(self.server.name, self._limits.timeout_s, self._secrets, self._in_place(work))
        finally:
            self._calls -= 1

    async def _in_place(self, work: Callable[[Session], Awaitable[ToolResult]]) -> ToolResult:
        """Return what ``work`` returns, as soon as a call may run.

        Raises:
            SessionLost: the connection was lost meanwhile.
        """
        # Wait without a place: calls of other servers need it.
        await self._connected_session()
        async with self._limits.place():
            session = await self._connected_session()
            if session is None:
                reason = self._reason or "it is connecting"
                return failed(f"The MCP server {self.server.name} is not connected: {reason}.")
            try:
                return await work(session)
            except SessionLost as lost:
                if session is self._session:
                    self._lose(str(lost))
                raise SessionLost(self._loss or str(lost)) from None

    async def _connected_session(self) -> Session | None:
        """Return the session; where it was lost a moment ago, wait for the next one, for a while."""
        if self._session is None and self._connect_s is not None and self._state == "connecting":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RECONNECT_S):
                    await self._settled.wait()
        return self._session

    async def _run(self) -> None:
        """Connect, again and again, until a cancel."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            self._lost.clear()
            self._loss, self._connected_at = "", None
            began = loop.time()
            try:
                await self._connect_once(began)
                reason = self._loss or "the connection was lost"
            except Exception as error:
                reason = self._loss or reason_of(error, self._secrets)
                logger.debug("MCP server %s", self.server.name, exc_info=True)
            connected_at = self._connected_at
            is_steady = connected_at is not None and loop.time() - connected_at >= STEADY_S
            failures = 1 if is_steady else failures + 1
            delay = delay_s(failures, random.random())
            self._retry_at = loop.time() + delay
            if reason != self._reason or connected_at is not None:
                logger.warning(
                    "MCP server %s is not connected%s: %s; it is tried again",
                    self.server.name,
                    "" if connected_at is None else " any more",
                    reason,
                )
            # Most losses are restarts, so that calls wait for the next connection.
            self._end_session("connecting" if connected_at is not None and failures == 1 else "failed", reason)
            await asyncio.sleep(delay)

    async def _connect_once(self, began: float) -> None:
        """Connect, and return when the connection is lost."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_S) as limit:
            async with open_session(self.server.name, transport_of(self.server), self._on_transport_error) as session:
                listed = await session.list_tools()
                limit.reschedule(None)
                self._connect_s = round(loop.time() - began, 3)
                self._connected_at = loop.time()
                self._title, self._session = session.title, session
                self.tools = self._offered(listed)
                self._set_state("connected", "")
                logger.info(
                    "MCP server %s is connected: %d tools in %.1f s",
                    self.server.name,
                    len(self.tools),
                    self._connect_s,
                )
                await self._serve(session)

    async def _serve(self, session: Session) -> None:
        """Follow the server's changes, and return when the connection is lost."""
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(session.follow_changes()),
                tasks.create_task(self._relist(session)),
                tasks.create_task(self._check(session)),
            ]
            await self._lost.wait()
            # No further call uses the session while it is closed.
            self._end_session("connecting", self._loss)
            for task in background:
                task.cancel()

    async def _relist(self, session: Session) -> None:
        """Take up changes of the server's tools."""
        while True:
            await session.changed.wait()
            session.changed.clear()
            try:
                async with asyncio.timeout(CONNECT_S):
                    tools = self._offered(await session.list_tools())
            except TimeoutError:
                self._lose("it does not answer in time")
                return
            except Exception as error:  # noqa: BLE001 (see _run; the list that was read before still holds)
                logger.warning(
                    "The tools of the MCP server %s could not be read again: %s",
                    self.server.name,
                    reason_of(error, self._secrets),
                )
            else:
                if tools != self.tools:
                    self.tools = tools
                    logger.info("MCP server %s has %d tools now", self.server.name, len(tools))
                    self._on_change()
            await asyncio.sleep(RELIST_S)

    async def _check(self, session: Session) -> None:
        """Ask for a sign of life while no call runs: a server may be busy with one."""
        while True:
            await asyncio.sleep(CHECK_S)
            if self._calls:
                continue
            try:
                await session.check()
            except SessionLost as lost:
                if not self._calls:
                    self._lose(str(lost))
                    return

    def _offered(self, listed: tuple[ListedTool, ...]) -> tuple[ListedTool, ...]:
        """Return the tools that models may call; warn of names in the configuration that the server does not have."""
        server, names = self.server, {tool.own_name for tool in listed}
        missing = [name for name in (*(server.tools or ()), *server.exclude) if name not in names]
        if missing:
            logger.warning("MCP server %s has no tool %s", server.name, ", ".join(missing))
        return tuple(
            tool
            for tool in listed
            if (server.tools is None or tool.own_name in server.tools) and tool.own_name not in server.exclude
        )

    def _on_transport_error(self, error: Exception) -> None:
        # A ValueError is a message that cannot be read; the connection goes on.
        if not isinstance(error, ValueError):
            self._lose(reason_of(error, self._secrets))

    def _lose(self, reason: str) -> None:
        """Note that the connection is lost."""
        self._loss = self._loss or reason
        self._lost.set()

    def _end_session(self, state: State, reason: str) -> None:
        """Note that there is no session, in a state in which calls wait for the next one, or fail at once."""
        self._session, self.tools = None, ()
        self._set_state(state, reason)

    def _set_state(self, state: State, reason: str) -> None:
        self._state, self._reason = state, reason
        (self._settled.clear if state == "connecting" else self._settled.set)()
        self._on_change()
