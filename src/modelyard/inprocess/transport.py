"""OpenAI's client on a model in the same process: requests go to the ASGI application, without a socket.

Unlike httpx's own ASGI transport, it streams the body, and closing a response early disconnects from the application.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import httpx2
from starlette.types import ASGIApp, Message

from modelyard.errors import MissingExtra

if TYPE_CHECKING:
    import openai

_T = TypeVar("_T")

# The paths of the application start here. Nothing listens at this address.
_BASE_URL = "http://localhost/v1"
# Unread pieces of a body at which the application's ``send`` blocks.
MAX_UNREAD = 16
# How long an application has to end after its client has disconnected.
LEAVE_S = 5.0


Call = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]
"""Runs a coroutine on the event loop of the application, from another thread, and returns its result."""


def openai_client(app: ASGIApp, call: Call, **options: Any) -> openai.OpenAI:
    """Return OpenAI's client on ``app``; see ``Model.openai_client``."""
    client: type[openai.OpenAI] = _openai("openai_client").OpenAI

    transport = _Transport(app, call)
    return client(**{**_DEFAULTS, **options}, http_client=httpx2.Client(transport=transport, base_url=_BASE_URL))


def async_openai_client(app: ASGIApp, **options: Any) -> openai.AsyncOpenAI:
    """Return OpenAI's asynchronous client on ``app``; see ``Model.async_openai_client``."""
    client: type[openai.AsyncOpenAI] = _openai("async_openai_client").AsyncOpenAI

    transport = _AsyncTransport(app)
    return client(**{**_DEFAULTS, **options}, http_client=httpx2.AsyncClient(transport=transport, base_url=_BASE_URL))


# The first version that takes the HTTP client of this module.
_MIN_OPENAI = (3, 54)


def _openai(method: str) -> Any:
    """Return the package ``openai``.

    Raises:
        MissingExtra: it is not installed, or too old.
    """
    needed = f"model.{method}()"
    try:
        import openai
    except ImportError as missing:
        raise MissingExtra(needed, "openai", "openai") from missing
    version = tuple(int(part) for part in openai.__version__.split(".")[:2] if part.isdigit())
    if version < _MIN_OPENAI:
        wanted = ".".join(map(str, _MIN_OPENAI))
        raise MissingExtra(needed, f"openai>={wanted} (installed: {openai.__version__})", "openai")
    return openai


def async_http_client(app: ASGIApp) -> httpx2.AsyncClient:
    """Return an HTTP client on ``app``, for its own event loop; paths start at the application's root."""
    return httpx2.AsyncClient(transport=_AsyncTransport(app), base_url=_BASE_URL.removesuffix("/v1"))


# No retries: in process there are no network errors to retry.
_DEFAULTS: Mapping[str, Any] = MappingProxyType({"base_url": _BASE_URL, "api_key": "in-process", "max_retries": 0})


class _Exchange:
    """One request to an application and its response. Use it on one event loop."""

    def __init__(self, app: ASGIApp, request: httpx2.Request, body: bytes) -> None:
        self._app, self._body = app, body
        url = request.url
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.partition(b"?")[0],
            "query_string": url.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "client": None,
            "server": (url.host, url.port),
        }
        self._request_sent = False
        self._disconnected = asyncio.Event()
        self._head: asyncio.Future[tuple[int, list[tuple[bytes, bytes]]]] = asyncio.get_running_loop().create_future()
        self._pieces: deque[bytes] = deque()
        self._has_ended = False
        self._arrived, self._drained = asyncio.Event(), asyncio.Event()
        self._running = asyncio.create_task(self._run())

    async def head(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Return the status and the headers of the response.

        Raises:
            Exception: the exception that the application raised.
        """
        try:
            return await asyncio.shield(self._head)
        except BaseException:
            await self.close()
            raise

    async def piece(self) -> bytes:
        """Return the body that has arrived since the last call, at least a byte; b"" at its end."""
        while not self._pieces and not self._has_ended:
            self._arrived.clear()
            await self._arrived.wait()
        piece = b"".join(self._pieces)
        self._pieces.clear()
        self._drained.set()
        return piece

    async def close(self) -> None:
        """Disconnect, and wait up to ``LEAVE_S`` for the application to end."""
        self._disconnected.set()
        self._drained.set()
        try:
            await asyncio.wait((self._running,), timeout=LEAVE_S)
        finally:
            self._running.cancel()

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self._receive, self._send)
        except Exception as failure:  # noqa: BLE001 (raised by ``head``)
            if not self._head.done():
                self._head.set_exception(failure)
        finally:
            if not self._head.done():
                self._head.set_exception(httpx2.RemoteProtocolError("The application did not answer"))
            # Marks the exception as retrieved: a closed exchange has no caller of ``head``, and asyncio would log it.
            self._head.exception()
            self._end()

    async def _receive(self) -> Message:
        if not self._request_sent:
            self._request_sent = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._disconnected.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._head.set_result((message["status"], list(message.get("headers", ()))))
            return
        if body := message.get("body"):
            self._pieces.append(body)
            self._arrived.set()
        if not message.get("more_body"):
            self._end()
        while len(self._pieces) >= MAX_UNREAD and not self._disconnected.is_set():
            self._drained.clear()
            await self._drained.wait()

    def _end(self) -> None:
        self._has_ended = True
        self._arrived.set()


def _read_timeout_s(request: httpx2.Request) -> float | None:
    """Return the client's read timeout; None: it has none."""
    timeout_s: float | None = request.extensions.get("timeout", {}).get("read")
    return timeout_s


class _AsyncTransport(httpx2.AsyncBaseTransport):
    """Runs the application on the event loop of the caller."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        exchange = _Exchange(self._app, request, await request.aread())
        timeout_s = _read_timeout_s(request)
        status, headers = await _with_timeout(timeout_s, exchange.head())
        return httpx2.Response(status, headers=headers, stream=_AsyncBody(exchange, timeout_s))


class _AsyncBody(httpx2.AsyncByteStream):
    def __init__(self, exchange: _Exchange, timeout_s: float | None) -> None:
        self._exchange, self._timeout_s = exchange, timeout_s

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await _with_timeout(self._timeout_s, self._exchange.piece()):
            yield piece

    async def aclose(self) -> None:
        await self._exchange.close()


async def _with_timeout(timeout_s: float | None, work: Coroutine[Any, Any, _T]) -> _T:
    try:
        async with asyncio.timeout(timeout_s):
            return await work
    except TimeoutError as late:
        raise httpx2.ReadTimeout(f"No data for {timeout_s} s") from late


class _Transport(httpx2.BaseTransport):
    """Runs the application on its own event loop, for callers on other threads."""

    def __init__(self, app: ASGIApp, call: Call) -> None:
        self._app, self._call = app, call

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        body, timeout_s = request.read(), _read_timeout_s(request)

        async def start() -> tuple[_Exchange, int, list[tuple[bytes, bytes]]]:
            exchange = _Exchange(self._app, request, body)
            return exchange, *await _with_timeout(timeout_s, exchange.head())

        exchange, status, headers = self._call(start)
        return httpx2.Response(status, headers=headers, stream=_Body(exchange, self._call, timeout_s))


class _Body(httpx2.SyncByteStream):
    def __init__(self, exchange: _Exchange, call: Call, timeout_s: float | None) -> None:
        self._exchange, self._call, self._timeout_s = exchange, call, timeout_s

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._call(lambda: _with_timeout(self._timeout_s, self._exchange.piece())):
            yield piece

    def close(self) -> None:
        self._call(self._exchange.close)
