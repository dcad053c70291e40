"""Passes the messages of an MCP client on standard input and output on to /mcp of a server.

The messages pass as they are. The bridge adds what HTTP needs, and opens a new session where the server has ended the
old one, for example because it was started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx2
import orjson

MAX_IN_FLIGHT: Final = 64
"""Requests that are passed on at the same time; further ones are refused, so that cancellations are always read."""

MAX_EVENT_BYTES: Final = 64 << 20
"""Bytes of one message of the server: the vectors of many texts are long."""

MAX_ID_CHARS: Final = 256
"""Characters of the id of a request that tell it from others."""

CONNECT_S: Final = 5.0
"""Seconds in which a connection is established."""

OPEN_S: Final = 60.0
"""Seconds in which a session is opened. Nothing else that the client sends is read meanwhile, nor its end."""

MIN_RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 30.0
"""Seconds between attempts to open the stream of events; they double."""

_ACCEPT: Final = "application/json, text/event-stream"
_VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
# Methods whose header Mcp-Name repeats a parameter. Source: MCP 2026-07-28, basic/transports, "Standard headers".
_NAMED: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}

_PARSE_ERROR: Final = -32700
_INVALID_REQUEST: Final = -32600
_INTERNAL_ERROR: Final = -32603

Message = dict[str, Any]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Session:
    """A session at the server.

    Attributes:
        id: as the server named it; None: it needs no name.
        version: of the protocol.
        initialize: the request of the client that opened it.
    """

    id: str | None
    version: str
    initialize: Message


class Bridge:
    """The messages between one client and one server.

    Args:
        http: sends requests to the server; its base URL is the server's, its headers have the key.
        write: writes a line to the client.
    """

    def __init__(self, http: httpx2.AsyncClient, write: Callable[[bytes], Awaitable[None]]) -> None:
        self._http, self._write = http, write
        self._session: _Session | None = None
        self._opening = asyncio.Lock()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._events: asyncio.Task[None] | None = None

    async def pass_on(self, line: bytes) -> None:
        """Pass a message of the client on. Requests are answered later, as the server answers them."""
        try:
            message = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            await self._fail(None, _PARSE_ERROR, f"The line is no JSON: {error}.")
            return
        if not isinstance(message, dict):
            await self._fail(None, _INVALID_REQUEST, "A message is a JSON object; batches are not supported.")
            return
        identifier = message.get("id")
        if message.get("method") == "initialize":
            async with self._opening:
                answers, self._session = await self._open(message)
            for answer in answers:
                await self._write(orjson.dumps(answer))
        elif "method" in message and identifier is not None:
            await self._start(message, identifier)
        elif message.get("method") == "notifications/cancelled" and not self._has_id:
            # Without a session, a request is cancelled by its disconnect.
            params = message.get("params")
            running = self._tasks.get(_key_of(params.get("requestId") if isinstance(params, dict) else None))
            if running is not None:
                running.cancel()
        else:
            await self._notify(message)

    async def aclose(self) -> None:
        """End all requests, and the session."""
        tasks = [*self._tasks.values(), *([self._events] if self._events else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._has_id:
            with contextlib.suppress(httpx2.HTTPError):
                await self._http.delete("/mcp", headers=_headers({}, self._session), timeout=CONNECT_S)

    @property
    def _has_id(self) -> bool:
        """Whether there is a session that the server knows by its id."""
        return self._session is not None and self._session.id is not None

    async def _start(self, message: Message, identifier: object) -> None:
        """Pass a request on, in a task of its own."""
        key = _key_of(identifier)
        if key in self._tasks:
            await self._fail(identifier, _INVALID_REQUEST, "A request with this id is running already.")
        elif len(self._tasks) >= MAX_IN_FLIGHT:
            await self._fail(identifier, _INTERNAL_ERROR, f"{MAX_IN_FLIGHT} requests are running already.")
        else:
            self._tasks[key] = asyncio.create_task(self._request(message))
            self._tasks[key].add_done_callback(lambda done: self._forget(key, done))

    def _forget(self, key: str, done: asyncio.Task[None]) -> None:
        del self._tasks[key]
        if not done.cancelled() and isinstance(error := done.exception(), Exception):
            # Nobody reads the answers any more; the end of standard input follows.
            logger.debug("a request could not be answered: %s", error)

    async def _open(self, message: Message) -> tuple[list[Message], _Session | None]:
        """Send the request that opens a session; return the answers, and the session unless it was refused."""
        identifier = message.get("id")
        ids: list[str | None] = []
        try:
            async with asyncio.timeout(OPEN_S), contextlib.aclosing(self._answers(message, ids.append)) as arriving:
                answers = [answer async for answer in arriving]
        except TimeoutError:
            why = f"The server has not answered within {OPEN_S:.0f} s."
            return [_failure(identifier, _INTERNAL_ERROR, why)], None
        for answer in answers:
            if answer.get("id") == identifier and isinstance(result := answer.get("result"), Mapping):
                return answers, _Session(ids[0], str(result.get("protocolVersion")), message)
        return answers, None

    async def _reopen(self, ended: _Session) -> bool:
        """Open a session in place of the one that has ended; return whether there is one.

        The one that has ended stays until then, so that requests that come meanwhile, or after this has failed, are
        refused as this one was, and open a session, too.
        """
        async with self._opening:
            if self._session is not ended:
                return self._session is not None  # Another request has opened it meanwhile.
            _, opened = await self._open(ended.initialize)
            if opened is None:
                return False
            with contextlib.suppress(httpx2.HTTPError):
                await self._post({"jsonrpc": "2.0", "method": "notifications/initialized"}, opened)
                self._session = opened
            return self._session is opened

    async def _request(self, message: Message) -> None:
        async with contextlib.aclosing(self._answers(message, may_reopen=True)) as answers:
            async for answer in answers:
                await self._write(orjson.dumps(answer))

    async def _notify(self, message: Message) -> None:
        with contextlib.suppress(httpx2.HTTPError):
            # The client learns of a server that does not answer by its next request.
            await self._post(message, self._session)
        if message.get("method") == "notifications/initialized" and self._has_id and self._events is None:
            self._events = asyncio.create_task(self._follow_events())

    async def _post(self, message: Message, session: _Session | None) -> None:
        headers = _headers(message, session)
        await self._http.post("/mcp", content=orjson.dumps(message), headers=headers, timeout=CONNECT_S)

    async def _answers(
        self, message: Message, on_session: Callable[[str | None], None] | None = None, *, may_reopen: bool = False
    ) -> AsyncGenerator[Message]:
        """Yield the messages with which the server answers a request, the last of which is its response.

        Args:
            message: the request.
            on_session: called with the id of the session that the request opens, if it has one; None: the request
                opens none, and is one of the session that there is.
            may_reopen: whether a session is opened in place of one that has ended.
        """
        session = self._session if on_session is None else None
        is_answered = False
        try:
            async with self._http.stream(
                "POST",
                "/mcp",
                content=orjson.dumps(message),
                headers=_headers(message, session),
                timeout=httpx2.Timeout(None, connect=CONNECT_S),
            ) as response:
                if response.status_code == 404 and session is not None and may_reopen:
                    await response.aread()
                    is_answered = True
                    if await self._reopen(session):
                        async with contextlib.aclosing(self._answers(message)) as answers:
                            async for answer in answers:
                                yield answer
                        return
                    yield _failure(message.get("id"), _INTERNAL_ERROR, "The session has ended.")
                    return
                if on_session is not None:
                    on_session(response.headers.get("mcp-session-id"))
                async for answer in _messages(response):
                    if "method" not in answer:
                        is_answered = True
                        # Errors that precede the protocol have no id.
                        answer["id"] = message.get("id")
                    yield answer
                if not is_answered:
                    yield _failure(message.get("id"), _INTERNAL_ERROR, await _refusal(response))
        except httpx2.HTTPError as error:
            if not is_answered:
                why = str(error) or type(error).__name__
                yield _failure(message.get("id"), _INTERNAL_ERROR, f"The server does not answer: {why}")

    async def _follow_events(self) -> None:
        """Pass on what the server sends on its own, and open the stream again where it ends."""
        wait_s = MIN_RETRY_S
        while True:
            with contextlib.suppress(httpx2.HTTPError):
                timeout = httpx2.Timeout(None, connect=CONNECT_S)
                headers = _headers({}, self._session)
                async with self._http.stream("GET", "/mcp", headers=headers, timeout=timeout) as response:
                    if response.status_code == 200:
                        wait_s = MIN_RETRY_S
                        async for message in _messages(response):
                            await self._write(orjson.dumps(message))
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, MAX_RETRY_S)

    async def _fail(self, identifier: object, code: int, why: str) -> None:
        await self._write(orjson.dumps(_failure(identifier, code, why)))


def _headers(message: Message, session: _Session | None) -> dict[str, str]:
    headers = {"accept": _ACCEPT, "content-type": "application/json"}
    version = _version_of(message)
    if version is not None:
        return headers | _standard_headers(message, version)
    if session is not None:
        headers["mcp-protocol-version"] = session.version
        if session.id is not None:
            headers["mcp-session-id"] = session.id
    return headers


def _version_of(message: Message) -> str | None:
    """Return the version that a message of a client without a session names; None: it names none."""
    params = message.get("params")
    meta = params.get("_meta") if isinstance(params, Mapping) else None
    version = meta.get(_VERSION_KEY) if isinstance(meta, Mapping) else None
    return version if isinstance(version, str) and _is_plain(version) else None


def _standard_headers(message: Message, version: str) -> dict[str, str]:
    """Return the headers that repeat parts of a message of a client without a session."""
    method = str(message.get("method", ""))
    headers = {"mcp-protocol-version": version, "mcp-method": method if _is_plain(method) else ""}
    named = message["params"].get(_NAMED.get(method, ""))
    if isinstance(named, str):
        headers["mcp-name"] = named if _is_plain(named) else _in_base64(named)
    return headers


def _is_plain(text: str) -> bool:
    """Whether a header can have ``text`` as its value."""
    return text.isascii() and text.isprintable() and text == text.strip()


def _in_base64(text: str) -> str:
    """Return a header's value that is no printable ASCII. Source: MCP 2026-07-28, basic/transports, "Encoding"."""
    import base64

    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


async def _messages(response: httpx2.Response) -> AsyncGenerator[Message]:
    """Yield the messages in a response: one as JSON, or several as server-sent events."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "text/event-stream":
        async for event in httpx2.EventSource(response, max_event_size=MAX_EVENT_BYTES):
            if (message := _object_of(event.data)) is not None:
                yield message
        return
    message = _object_of(await response.aread())
    if message is not None and message.get("jsonrpc") == "2.0":
        yield message


def _object_of(text: str | bytes) -> Message | None:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


async def _refusal(response: httpx2.Response) -> str:
    """Return why a server has answered without a message, as it says it or by its status."""
    error = (_object_of(await response.aread()) or {}).get("error")
    if isinstance(error, Mapping) and isinstance(said := error.get("message"), str):
        return said
    return f"The server answered with status {response.status_code} and no message. Does it serve /mcp?"


def _failure(identifier: object, code: int, why: str) -> Message:
    return {"jsonrpc": "2.0", "id": identifier, "error": {"code": code, "message": why}}


def _key_of(identifier: object) -> str:
    """Return the key of a request. The server takes 1 and "1" for one id."""
    return str(identifier)[:MAX_ID_CHARS]
