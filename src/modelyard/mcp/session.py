"""One session with an MCP server: the handshake, its tools, calls. The SDK is imported when one is opened."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final, cast

from modelyard.agent.tools import ReportProgress, ServerTool, ToolFunction, ToolProgress, ToolResult
from modelyard.mcp.lost import SessionLost
from modelyard.mcp.results import failed, resource_result_of, result_of
from modelyard.mcp.schemas import UnusableSchema, parameters_of
from modelyard.system.printable import printable
from modelyard.version import __version__

if TYPE_CHECKING:
    import mcp_types as types
    from mcp.client._transport import TransportStreams
    from mcp.client.client import Client
    from pydantic import TypeAdapter

logger = logging.getLogger(__name__)

MAX_TOOLS: Final = 512
"""Tools of one server. More would fill the context of any model."""
MAX_PAGES: Final = 100
MAX_DESCRIPTION_CHARS: Final = 4096
MAX_INPUT_ROUNDS: Final = 3
"""How often a server may ask for input, which is refused each time, before its call is given up."""

PING_S: Final = 10.0
PROGRESS_S: Final = 0.1
"""Reports of progress follow one another no faster; those between are dropped."""
_MAX_LABEL_CHARS: Final = 200
"""Characters of a text of one line: a title, a name, the message of a report."""
_MAX_ERROR_CHARS: Final = 2000
_LISTEN_AGAIN_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class ListedTool:
    """A tool as its server lists it.

    Attributes:
        own_name: its name there.
        description: what it does; cut where it is too long.
        parameters: JSON schema of its arguments.
        is_read_only: whether the server says that it changes nothing.
    """

    own_name: str
    description: str
    parameters: Mapping[str, Any] = field(repr=False)
    is_read_only: bool = False

    def offered_as(self, name: str, server: str, run: ToolFunction, *, needs_approval: bool = False) -> ServerTool:
        """Return the tool under the name by which models call it."""
        return ServerTool(
            name, server, self.own_name, self.description, self.parameters, run, needs_approval, self.is_read_only
        )


class Session:
    """A session with a server. Use it on one event loop; calls may be made by any task of it.

    Args:
        name: of the server, for the log.
        client: connected.

    Attributes:
        changed: is set when the server says that its tools have changed.
    """

    def __init__(self, name: str, client: Client, changed: asyncio.Event) -> None:
        self.changed = changed
        self._name, self._client = name, client

    @property
    def title(self) -> str:
        """What the server calls itself, with its version; "" where it does not say it."""
        info = self._client.server_info
        return "" if info is None else printable(f"{info.name} {info.version}".strip(), _MAX_LABEL_CHARS)

    async def list_tools(self) -> tuple[ListedTool, ...]:
        """Return the tools of the server, at most ``MAX_TOOLS``, each name once.

        Raises:
            MCPError: the server answers with an error.
        """
        import mcp_types as types

        listed: dict[str, ListedTool] = {}
        cursor: str | None = None
        capabilities = self._client.server_capabilities
        if capabilities is not None and capabilities.tools is None:
            return ()
        for _ in range(MAX_PAGES):
            params = types.PaginatedRequestParams(cursor=cursor)
            page = await self._client.session.list_tools(params=params)
            for tool in page.tools:
                if len(listed) == MAX_TOOLS:
                    logger.warning("MCP server %s has more than %d tools; the rest is left out", self._name, MAX_TOOLS)
                    return tuple(listed.values())
                if (usable := self._usable(tool)) is not None:
                    listed.setdefault(usable.own_name, usable)
            cursor = page.next_cursor
            if not cursor:
                return tuple(listed.values())
        logger.warning("MCP server %s lists its tools on more than %d pages", self._name, MAX_PAGES)
        return tuple(listed.values())

    def _usable(self, tool: types.Tool) -> ListedTool | None:
        try:
            if not tool.name:
                raise UnusableSchema("it has no name")
            if _writable(tool.name) != tool.name:
                raise UnusableSchema("its name has halves of characters")
            parameters = parameters_of(tool.input_schema)
        except UnusableSchema as unusable:
            logger.warning(
                "The tool %s of the MCP server %s is left out: %s",
                printable(tool.name, _MAX_LABEL_CHARS),
                self._name,
                unusable,
            )
            return None
        description = _writable(tool.description or tool.title or "")
        if len(description) > MAX_DESCRIPTION_CHARS:
            description = f"{description[:MAX_DESCRIPTION_CHARS]}…"
        hints = tool.annotations
        return ListedTool(tool.name, description, parameters, bool(hints is not None and hints.read_only_hint))

    async def call(self, own_name: str, arguments: Mapping[str, Any], report: ReportProgress, limit: int) -> ToolResult:
        """Call a tool. Cancelling the call cancels it at the server.

        Args:
            own_name: its name at the server.
            arguments: of the call.
            report: takes its progress.
            limit: bytes of the result's text.

        Raises:
            SessionLost: the connection broke while it ran, or before.
        """
        import mcp_types as types
        from mcp.shared.exceptions import MCPError
        from pydantic import ValidationError

        responses: types.InputResponses | None = None
        state: str | None = None
        try:
            for _ in range(MAX_INPUT_ROUNDS + 1):
                # Not the session's call_tool, which would check the result against a schema of the server's, whose
                # patterns can take any time.
                result = await self._client.session.send_request(
                    types.CallToolRequest(
                        params=types.CallToolRequestParams(
                            name=own_name, arguments=dict(arguments), input_responses=responses, request_state=state
                        )
                    ),
                    _call_answers(),
                    progress_callback=cast("Any", _Reports(report)),
                )
                if isinstance(result, types.CallToolResult):
                    return result_of(result, limit)
                responses, state = _refusals(result), result.request_state
            return failed("The tool asks for input of a person, which this server cannot give.")
        except MCPError as error:
            return self._error_result(error)
        except ValidationError:
            return failed("The server's answer is not one of the protocol.")

    async def read_resource(self, uri: str, limit: int) -> ToolResult:
        """Read a resource, at most ``limit`` bytes of it.

        Raises:
            SessionLost: the connection broke while it was read, or before.
        """
        import mcp_types as types
        from mcp.shared.exceptions import MCPError
        from pydantic import ValidationError

        try:
            result = await self._client.session.send_request(
                types.ReadResourceRequest(params=types.ReadResourceRequestParams(uri=uri)), types.ReadResourceResult
            )
        except MCPError as error:
            return self._error_result(error)
        except ValidationError:
            return failed("The server's answer is not one of the protocol.")
        return resource_result_of(result, limit)

    async def check(self) -> None:
        """Ask the server for a sign of life.

        Raises:
            SessionLost: it gives none in time.
        """
        import mcp_types as types
        from mcp.shared.exceptions import MCPError
        from mcp_types.version import MODERN_PROTOCOL_VERSIONS
        from pydantic import ValidationError

        session = self._client.session
        try:
            async with asyncio.timeout(PING_S):
                if self._client.protocol_version in MODERN_PROTOCOL_VERSIONS:
                    await session.list_tools(params=types.PaginatedRequestParams())
                else:
                    await session.send_request(types.PingRequest(), types.EmptyResult)
        except TimeoutError:
            raise SessionLost("it does not answer in time") from None
        except MCPError as error:
            if _is_of_connection(error):
                raise SessionLost(_message(error)) from None
            # Any answer is a sign of life, also one that cannot be read.
        except ValidationError:
            pass

    async def follow_changes(self) -> None:
        """Set ``changed`` when the server of a newer protocol says that its tools have changed, until a cancel.

        Servers of an older protocol say it without being asked.
        """
        from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
        from mcp.shared.exceptions import MCPError

        is_first = True
        while True:
            try:
                async with self._client.listen(tools_list_changed=True) as subscription:
                    if not is_first:
                        # What has changed since the end of the subscription before is not reported again.
                        self.changed.set()
                    is_first = False
                    async for _ in subscription:
                        self.changed.set()
            except (ListenNotSupportedError, MCPError):
                return
            except (SubscriptionLost, TimeoutError):
                pass
            await asyncio.sleep(_LISTEN_AGAIN_S)

    def _error_result(self, error: Any) -> ToolResult:
        """Return the result for an error that a server answered a request with.

        Raises:
            SessionLost: the error is about the connection.
        """
        if _is_of_connection(error):
            raise SessionLost(_message(error)) from None
        return failed(f"The server answers with an error: {printable(_message(error), _MAX_ERROR_CHARS)}")


def _writable(text: str) -> str:
    """Return text as UTF-8 can have it: halves of characters (lone surrogates), which JSON may escape, become "?"."""
    return text if text.isascii() else text.encode(errors="replace").decode()


@asynccontextmanager
async def open_session(
    name: str, transport: AbstractAsyncContextManager[TransportStreams], lost: Callable[[Exception], None]
) -> AsyncIterator[Session]:
    """Enter with a session, after the handshake. Leave it in the task that has entered it.

    Args:
        name: of the server, for the log.
        transport: not yet entered.
        lost: is called with errors of the transport.
    """
    import mcp_types as types
    from mcp.client.client import Client

    from modelyard.mcp.transports.watched import watched

    changed = asyncio.Event()

    async def take(message: types.ServerNotification | Exception) -> None:
        if isinstance(message, Exception):
            lost(message)
        elif isinstance(message, types.ToolListChangedNotification):
            changed.set()

    # Without callbacks the client declares no sampling, elicitation and roots, and refuses requests for them.
    client = Client(
        watched(transport, lost),
        cache=None,
        client_info=types.Implementation(name="modelyard", version=__version__),
        message_handler=take,
    )
    async with client:
        yield Session(name, client, changed)


class _Reports:
    """Passes on the progress of one call, not too often.

    Args:
        report: takes it.
    """

    def __init__(self, report: ReportProgress) -> None:
        self._report, self._last = report, float("-inf")

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        """Take a report of the server."""
        now = asyncio.get_running_loop().time()
        if now - self._last >= PROGRESS_S:
            self._last = now
            self._report(ToolProgress(progress, total, printable(message or "", _MAX_LABEL_CHARS)))


@cache
def _call_answers() -> TypeAdapter[Any]:
    """Return what reads the answers to calls. It is made once: that takes longer than reading an answer."""
    import mcp_types as types
    from pydantic import TypeAdapter

    return TypeAdapter(types.CallToolResult | types.InputRequiredResult)


def _refusals(result: types.InputRequiredResult) -> types.InputResponses:
    """Return the answers to requests of a server in the middle of a call: there is no user to ask."""
    import mcp_types as types

    responses: dict[str, Any] = {}
    for key, request in (result.input_requests or {}).items():
        match request:
            case types.ElicitRequest():
                responses[key] = types.ElicitResult(action="decline")
            case types.ListRootsRequest():
                responses[key] = types.ListRootsResult(roots=[])
            case _:  # sampling, for which there is no refusal
                continue
    return responses


def _is_of_connection(error: Any) -> bool:
    """Whether an error is about the connection, after which the session is of no use."""
    from mcp_types import CONNECTION_CLOSED

    # The code alone is no evidence: it is also the first one that servers may use for errors of their own.
    is_of_stream = error.code == CONNECTION_CLOSED and _message(error).startswith(("Connection closed", "SSE stream"))
    return is_of_stream or _message(error) == "Session terminated"


def _message(error: Any) -> str:
    return str(getattr(getattr(error, "error", None), "message", "") or error)
