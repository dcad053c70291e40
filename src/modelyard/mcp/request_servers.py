"""MCP servers that a request names: connections that last for one answer, to hosts that the operator allows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from modelyard.agent.tools import ReportProgress, ServerTool, ToolResult
from modelyard.config.hosts import is_address
from modelyard.config.mcp import sound_prefix
from modelyard.errors import InvalidRequest
from modelyard.mcp.bounded_call import bounded_call
from modelyard.mcp.lost import SessionLost
from modelyard.mcp.naming import ToolKey, tool_names
from modelyard.mcp.reasons import reason_of
from modelyard.mcp.results import failed
from modelyard.mcp.secrets import hidden
from modelyard.mcp.session import ListedTool, Session, open_session
from modelyard.system.printable import printable

if TYPE_CHECKING:
    from modelyard.config import Config, Mcp

CONNECT_S: Final = 15.0
"""Seconds for the connection and the list of tools; the request waits for it."""
CLOSE_S: Final = 5.0
"""Seconds for the end of a session, and once more for that of its task where that is cancelled."""
MAX_URL_CHARS: Final = 2048
MAX_HEADERS: Final = 64
_MAX_LABEL_CHARS: Final = 64
_LOCAL: Final = "localhost"
# What the transport sets itself, or what would lead the request to another server.
_OWN_HEADERS: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "content-type", "accept", "accept-encoding"}
)


@dataclass(frozen=True, slots=True)
class RequestServer:
    """An MCP server that a request names.

    Attributes:
        label: as the request calls it; it is the ``server`` of its tools, and their prefix.
        url: http or https URL of its streamable HTTP endpoint.
        headers: sent with each of its requests. They are secrets.
        authorization: token that is sent as ``Authorization: Bearer``; None: none. A secret.
        allowed_tools: own names of the tools that the model may call; None: all.
    """

    label: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    authorization: str | None = field(default=None, repr=False)
    allowed_tools: frozenset[str] | None = None


@asynccontextmanager
async def connect_for_request(
    server: RequestServer, config: Config, *, taken: Collection[str] = (), param: str = "tools"
) -> AsyncIterator[tuple[ServerTool, ...]]:
    """Enter with the tools of a server that a request names, connected until the context is left.

    The context may be entered and left by different tasks. The tools need no approval: what a dialect asks for is set
    with ``dataclasses.replace(tool, needs_approval=…)``.

    Args:
        server: what the request names.
        config: in force; its ``[mcp] allow_request_servers`` lists the hosts that requests may name.
        taken: names of other tools of the request, which the tools' names avoid.
        param: the field of the request that names the server, for errors.

    Raises:
        InvalidRequest: the host is not allowed, has a private address, or the server cannot be used.
    """
    host = _checked_host(server, config.mcp, param)
    headers = _checked_headers(server, param)
    connection = _RequestConnection(server, headers, config.mcp, is_local_allowed=_is_machine(host))
    try:
        listed = await connection.open()
    except SessionLost as error:
        # The reason is shown without the URL, which may hold a token.
        raise InvalidRequest(f"The MCP server {_label(server)} cannot be used: {error}.", param) from None
    try:
        yield _tools(server, connection, listed, taken)
    finally:
        await connection.close()


def _checked_host(server: RequestServer, mcp: Mcp, param: str) -> str:
    """Return the host of a server.

    Raises:
        InvalidRequest: its URL is none that is connected to.
    """
    if not mcp.allow_request_servers:
        raise InvalidRequest(
            f"This server connects to no MCP servers that requests name by a URL ({_label(server)}). Its operator can "
            "allow hosts with allow_request_servers in [mcp].",
            param,
        )
    try:
        url = urlsplit(server.url)
        host = (url.hostname or "").lower().rstrip(".")
        _ = url.port  # raises where it is no number
    except ValueError:
        raise InvalidRequest(f"The URL of the MCP server {_label(server)} is none. Check it.", param) from None
    if url.scheme not in ("http", "https") or not host or len(server.url) > MAX_URL_CHARS:
        message = f"The URL of the MCP server {_label(server)} must be an http or https URL"
        raise InvalidRequest(f"{message} of at most {MAX_URL_CHARS} characters.", param)
    if url.username is not None or url.password is not None:
        message = f"The URL of the MCP server {_label(server)} has a user name or a password."
        raise InvalidRequest(f"{message} Send them in headers.", param)
    if not any(_matches(host, pattern) for pattern in mcp.allow_request_servers):
        raise InvalidRequest(
            f"The host of the MCP server {_label(server)} is none that this server connects to. Its operator can add "
            "it to allow_request_servers in [mcp].",
            param,
        )
    return host


def _matches(host: str, pattern: str) -> bool:
    """Whether a host is one that ``allow_request_servers`` lists: the name itself, or below ``*.name``."""
    pattern = pattern.lower().rstrip(".").strip("[]")
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def _is_machine(host: str) -> bool:
    """Whether an allowed host is this very machine or an IP address: one that the operator lists may be private."""
    return host == _LOCAL or is_address(host)


def _checked_headers(server: RequestServer, param: str) -> dict[str, str]:
    """Return the headers to send.

    Raises:
        InvalidRequest: there are too many, or one that is the transport's own, or cannot be sent.
    """
    headers = dict(server.headers)
    if server.authorization is not None and not any(name.lower() == "authorization" for name in headers):
        headers["Authorization"] = f"Bearer {server.authorization.removeprefix('Bearer ')}"
    for name, value in headers.items():
        is_sound = name.isascii() and name.isprintable() and value.isascii() and value.isprintable()
        is_own = name.lower() in _OWN_HEADERS or name.lower().startswith("mcp-")
        if not is_sound or is_own or not name or any(character in name for character in ' :;,"'):
            raise InvalidRequest(
                f"The header '{printable(name, _MAX_LABEL_CHARS)}' of the MCP server {_label(server)} cannot be sent.",
                param,
            )
    if len(headers) > MAX_HEADERS:
        raise InvalidRequest(
            f"The MCP server {_label(server)} has {len(headers)} headers, and {MAX_HEADERS} are the limit.", param
        )
    return headers


def _label(server: RequestServer) -> str:
    return f"'{printable(server.label, _MAX_LABEL_CHARS)}'"


class _RequestConnection:
    """A session in a task of its own: who uses it may come and go, while the SDK's contexts are of one task."""

    def __init__(self, server: RequestServer, headers: Mapping[str, str], mcp: Mcp, *, is_local_allowed: bool) -> None:
        self._server, self._headers, self._mcp, self._is_local_allowed = server, headers, mcp, is_local_allowed
        self._secrets = hidden((*headers.values(), server.authorization or "", server.url))
        self._opened: asyncio.Future[tuple[ListedTool, ...]] = asyncio.get_running_loop().create_future()
        self._done = asyncio.Event()
        self._session: Session | None = None
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> tuple[ListedTool, ...]:
        """Connect, and return the server's tools.

        Raises:
            SessionLost: it cannot be used; the message says why.
        """
        self._task = asyncio.create_task(self._run(), name="MCP server of a request")
        try:
            return await asyncio.shield(self._opened)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection, or give up to connect. Bounded."""
        self._done.set()
        if self._task is None:
            return
        if not self._opened.done():
            self._task.cancel()
        _, pending = await asyncio.wait((self._task,), timeout=CLOSE_S)
        for task in pending:
            task.cancel()
            await asyncio.wait((task,), timeout=CLOSE_S)

    async def call(self, own_name: str, arguments: Mapping[str, Any], report: ReportProgress) -> ToolResult:
        """Call a tool. What goes wrong is a result with ``is_error``."""
        label, session = _label(self._server), self._session
        if session is None:
            return failed(f"The MCP server {label} is not connected any more.")
        result = session.call(own_name, arguments, report, self._mcp.max_result)
        return await bounded_call(label, self._mcp.tool_timeout, self._secrets, result)

    async def _run(self) -> None:
        from modelyard.mcp.transports.http import http_transport
        from modelyard.mcp.transports.pinned import pinned_transport

        try:
            async with asyncio.timeout(CONNECT_S) as limit:
                pinned = await pinned_transport(self._server.url, may_be_private=self._is_local_allowed)
                transport = http_transport(self._server.url, self._headers, pinned)
                async with open_session(self._server.label, transport, self._lose) as session:
                    listed = await session.list_tools()
                    limit.reschedule(None)
                    self._session = session
                    if not self._opened.done():
                        self._opened.set_result(listed)
                    await self._done.wait()
                    self._session = None
        except Exception as error:  # noqa: BLE001 (whatever a foreign server does is an error of the request)
            self._session = None
            if not self._opened.done():
                self._opened.set_exception(SessionLost(reason_of(error, self._secrets)))
        finally:
            if not self._opened.done():
                self._opened.cancel()
            elif not self._opened.cancelled():
                self._opened.exception()  # nobody may be left to read it

    def _lose(self, error: Exception) -> None:
        if not isinstance(error, ValueError):
            self._session = None


def _tools(
    server: RequestServer,
    connection: _RequestConnection,
    listed: tuple[ListedTool, ...],
    taken: Collection[str],
) -> tuple[ServerTool, ...]:
    offered = [tool for tool in listed if server.allowed_tools is None or tool.own_name in server.allowed_tools]
    prefix = sound_prefix(server.label)
    names = tool_names([ToolKey(server.label, prefix, tool.own_name) for tool in offered], taken)
    return tuple(
        tool.offered_as(name, server.label, partial(connection.call, tool.own_name))
        for name, tool in zip(names, offered, strict=True)
    )
