"""OpenAI's client on a model in the same process: requests go to the ASGI application, and no socket is opened.

Unlike httpx's own ASGI transport, an answer is passed on while it is made, and closing it early is heard.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import httpx2
from starlette.types import ASGIApp, Message

if TYPE_CHECKING:
    import openai

_T = TypeVar("_T")

# The application's own paths lie under it; nothing listens there.
_BASE_URL = "http://localhost/v1"
# Pieces of an answer that may wait for their reader before what makes them does.
MAX_UNREAD = 16
# How long an application may take to notice that its client has left.
LEAVE_S = 5.0


Call = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]
"""Runs a coroutine on the event loop of an application, from another thread, and returns its result."""


def openai_client(app: ASGIApp, call: Call, **options: Any) -> openai.OpenAI:
    """OpenAI's client on ``app``; see ``Model.openai_client``."""
    from openai import OpenAI

    transport = _Transport(app, call)
    return OpenAI(**{**_OURS, **options}, http_client=httpx2.Client(transport=transport, base_url=_BASE_URL))


def async_openai_client(app: ASGIApp, **options: Any) -> openai.AsyncOpenAI:
    """OpenAI's asynchronous client on ``app``; see ``Model.async_openai_client``."""
    from openai import AsyncOpenAI

    transport = _AsyncTransport(app)
    return AsyncOpenAI(**{**_OURS, **options}, http_client=httpx2.AsyncClient(transport=transport, base_url=_BASE_URL))


# A retry in process would meet the same again.
_OURS: Mapping[str, Any] = MappingProxyType({"base_url": _BASE_URL, "api_key": "in-process", "max_retries": 0})


class _Exchange:
    """One request to an application and its answer. Use it on one event loop."""

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
        self._is_asked = False
        self._has_left = asyncio.Event()
        self._head: asyncio.Future[tuple[int, list[tuple[bytes, bytes]]]] = asyncio.get_running_loop().create_future()
        self._pieces: deque[bytes] = deque()
        self._is_over = False
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self._running = asyncio.create_task(self._run())

    async def head(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Status and headers of the answer.

        Raises:
            Exception: what the application raised instead.
        """
        try:
            return await asyncio.shield(self._head)
        except BaseException:
            await self.close()
            raise

    async def piece(self) -> bytes:
        """What arrived of the body since the last look, at least a byte; b"" at its end."""
        while not self._pieces and not self._is_over:
            self._news.clear()
            await self._news.wait()
        arrived = b"".join(self._pieces)
        self._pieces.clear()
        self._room.set()
        return arrived

    async def close(self) -> None:
        """Leave: what still makes the answer is told so, and is over when this returns."""
        self._has_left.set()
        self._room.set()
        try:
            await asyncio.wait((self._running,), timeout=LEAVE_S)
        finally:
            self._running.cancel()

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self._receive, self._send)
        except Exception as failure:  # noqa: BLE001 (raised where the answer is waited for)
            if not self._head.done():
                self._head.set_exception(failure)
        finally:
            if not self._head.done():
                self._head.set_exception(httpx2.RemoteProtocolError("The application did not answer"))
            # Nobody may be waiting for it any more.
            self._head.exception()
            self._end()

    async def _receive(self) -> Message:
        if not self._is_asked:
            self._is_asked = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._has_left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._head.set_result((message["status"], list(message.get("headers", ()))))
            return
        if body := message.get("body"):
            self._pieces.append(body)
            self._news.set()
        if not message.get("more_body"):
            self._end()
        while len(self._pieces) >= MAX_UNREAD and not self._has_left.is_set():
            self._room.clear()
            await self._room.wait()

    def _end(self) -> None:
        self._is_over = True
        self._news.set()


def _patience_s(request: httpx2.Request) -> float | None:
    """How long the client waits for a sign of life."""
    patience_s: float | None = request.extensions.get("timeout", {}).get("read")
    return patience_s


class _AsyncTransport(httpx2.AsyncBaseTransport):
    """On the event loop of whoever sends."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        exchange = _Exchange(self._app, request, await request.aread())
        patience_s = _patience_s(request)
        status, headers = await _within(patience_s, exchange.head())
        return httpx2.Response(status, headers=headers, stream=_AsyncBody(exchange, patience_s))


class _AsyncBody(httpx2.AsyncByteStream):
    def __init__(self, exchange: _Exchange, patience_s: float | None) -> None:
        self._exchange, self._patience_s = exchange, patience_s

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await _within(self._patience_s, self._exchange.piece()):
            yield piece

    async def aclose(self) -> None:
        await self._exchange.close()


async def _within(patience_s: float | None, work: Coroutine[Any, Any, _T]) -> _T:
    try:
        async with asyncio.timeout(patience_s):
            return await work
    except TimeoutError as late:
        raise httpx2.ReadTimeout(f"Nothing came for {patience_s} s") from late


class _Transport(httpx2.BaseTransport):
    """From any thread but that of the event loop."""

    def __init__(self, app: ASGIApp, call: Call) -> None:
        self._app, self._call = app, call

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        body, patience_s = request.read(), _patience_s(request)

        async def begin() -> tuple[_Exchange, int, list[tuple[bytes, bytes]]]:
            exchange = _Exchange(self._app, request, body)
            return exchange, *await _within(patience_s, exchange.head())

        exchange, status, headers = self._call(begin)
        return httpx2.Response(status, headers=headers, stream=_Body(exchange, self._call, patience_s))


class _Body(httpx2.SyncByteStream):
    def __init__(self, exchange: _Exchange, call: Call, patience_s: float | None) -> None:
        self._exchange, self._call, self._patience_s = exchange, call, patience_s

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._call(lambda: _within(self._patience_s, self._exchange.piece())):
            yield piece

    def close(self) -> None:
        self._call(self._exchange.close)
