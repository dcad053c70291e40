"""The HTTP connection to the servers that have a model: requests out, answers and errors in.

Addresses come from the configuration alone, and redirects are not followed, so no request or answer decides whom the
server connects to. The key is in one header and in no message.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

import httpx2
import orjson

from modelyard.errors import (
    MAX_RETRY_AFTER_S,
    ModelyardError,
    RemoteFailed,
    RemoteRefused,
    RemoteTimeout,
    RemoteUnavailable,
)
from modelyard.protocol.forwarding import HOPS_HEADER, SESSION_HEADER, Forwarding
from modelyard.remote.answers import error_of, error_status
from modelyard.remote.settings import RemoteSettings

CONNECT_TIMEOUT_S: Final = 5.0
PROBE_TIMEOUT_S: Final = 5.0

MAX_BODY_BYTES: Final = 256 << 20
"""Bytes of an answer that is read whole: 2,048 vectors of 4,096 numbers are 180 MB."""

MAX_ERROR_BYTES: Final = 64 << 10

_MAX_IDLE_CONNECTIONS: Final = 64
_IDLE_S: Final = 30.0

_BUSY_STATUSES: Final = frozenset({429, 502, 503, 504})
_KEPT_STATUSES: Final = frozenset({400, 413, 422, 429, 508})
_TYPE_STATUSES: Final = {"invalid_request_error": 400, "rate_limit_error": 429}
_DEFAULT_BUSY_S: Final = 1.0


class Unanswered(Exception):
    """An address gave no answer to a request.

    Attributes:
        error: what the client reads where no other address answers.
        is_down: whether the address cannot be reached, so that it is left out.
        busy_s: seconds for which the server asks for no requests; None: it does not ask.
        was_dropped: whether the connection was closed before any byte of an answer, as one that was idle may be.
    """

    def __init__(
        self,
        error: ModelyardError,
        *,
        is_down: bool = False,
        busy_s: float | None = None,
        was_dropped: bool = False,
    ) -> None:
        super().__init__(error)
        self.error, self.is_down, self.busy_s, self.was_dropped = error, is_down, busy_s, was_dropped


class RemoteConnection:
    """Connections to all addresses of one model, which are kept open between requests.

    Args:
        settings: of the model.
        client: sends the requests.
    """

    def __init__(self, settings: RemoteSettings, client: httpx2.AsyncClient) -> None:
        self._settings, self._client = settings, client
        self._headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if settings.api_key:
            self._headers["authorization"] = f"Bearer {settings.api_key}"

    @asynccontextmanager
    async def post(self, url: str, path: str, body: bytes, forwarding: Forwarding) -> AsyncIterator[httpx2.Response]:
        """Return a context with the answer to a request, whose body is yet to be read.

        Raises:
            Unanswered: the server cannot be reached, is silent, or fails; another one may be asked.
            RemoteRefused: the server refuses the request as others would.
        """
        has_begun = False
        try:
            async with self._client.stream(
                "POST", url + path, content=body, headers=self._headers | _forwarded(forwarding)
            ) as response:
                has_begun = True
                if response.status_code != HTTPStatus.OK:
                    raise self.refusal(response.status_code, await _error_body(response), response.headers)
                yield response
        except httpx2.TransportError as failure:
            raise self._unanswered(failure, has_begun=has_begun) from failure

    async def probe(self, url: str) -> str:
        """Return why an address does not answer; "" where it does, whatever it answers."""
        try:
            response = await self._client.get(f"{url}/models", headers=self._headers, timeout=PROBE_TIMEOUT_S)
        except httpx2.TransportError as failure:
            return problem_of(failure)
        return f"status {response.status_code}" if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR else ""

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    def refusal(self, status: int, answer: Any, headers: Mapping[str, str] | None = None) -> Exception:
        """Return the exception for an error of the server: ``Unanswered`` where another server may answer.

        Args:
            status: HTTP status, or what an error in a stream has in place of it.
            answer: the body, as JSON or text.
            headers: of the answer; None: it is an error in a stream.
        """
        name = self._settings.name
        message, code, param = error_of(answer)
        message = message or f"status {status} without a message"
        after_s = _retry_after_s(headers or {})
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            reason = f"it refuses the API key ({message}). Check api_key_env of the model"
            return Unanswered(RemoteFailed(name, reason))
        if status == HTTPStatus.NOT_FOUND:
            reason = f"{message} (status 404). Check the address in remote, and remote_model"
            return Unanswered(RemoteFailed(name, reason))
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            reason = f"it redirects (status {status}), which is not followed. Write the final address in remote"
            return Unanswered(RemoteFailed(name, reason))
        if status in _KEPT_STATUSES or status < HTTPStatus.INTERNAL_SERVER_ERROR:
            kept = status if status in _KEPT_STATUSES else HTTPStatus.BAD_REQUEST.value
            refused = RemoteRefused(name, kept, message, code, param, after_s)
            return Unanswered(refused, busy_s=after_s or _DEFAULT_BUSY_S) if status == 429 else refused
        failed = RemoteFailed(name, f"{message} (status {status})")
        failed.retry_after_s = after_s
        return Unanswered(failed, busy_s=(after_s or _DEFAULT_BUSY_S) if status in _BUSY_STATUSES else None)

    def stream_error(self, event: Mapping[str, Any]) -> Exception:
        """Return the exception for an error that a stream has in place of a chunk."""
        error = event["error"]
        kind = error.get("type") if isinstance(error, Mapping) else None
        status = error_status(event) or _TYPE_STATUSES.get(kind or "", HTTPStatus.INTERNAL_SERVER_ERROR.value)
        return self.refusal(status, event)

    def _unanswered(self, failure: httpx2.TransportError, *, has_begun: bool) -> Unanswered:
        name = self._settings.name
        if isinstance(failure, httpx2.ReadTimeout | httpx2.WriteTimeout):
            return Unanswered(RemoteTimeout(name, self._settings.timeout_s), is_down=True)
        if isinstance(failure, httpx2.ConnectError | httpx2.ConnectTimeout):
            return Unanswered(RemoteUnavailable(name, problem_of(failure), 1), is_down=True)
        reason = f"the connection broke before the answer was complete ({problem_of(failure)})"
        return Unanswered(RemoteFailed(name, reason), is_down=True, was_dropped=not has_begun)


def client_of(settings: RemoteSettings, tls: Any) -> httpx2.AsyncClient:
    """Return the client for the addresses of a model; ``tls`` is the context of certificates, None without HTTPS."""
    return httpx2.AsyncClient(
        verify=False if tls is None else tls,
        trust_env=False,
        follow_redirects=False,
        timeout=httpx2.Timeout(settings.timeout_s, connect=CONNECT_TIMEOUT_S, pool=None),
        limits=httpx2.Limits(
            max_connections=None, max_keepalive_connections=_MAX_IDLE_CONNECTIONS, keepalive_expiry=_IDLE_S
        ),
    )


async def connect(settings: RemoteSettings) -> RemoteConnection:
    """Return the connection to the servers of a model. Nothing is sent yet."""
    tls = None
    if any(address.startswith("https:") for address in settings.addresses):
        # On another thread, because reading all certificate authorities takes 50 ms.
        tls = await asyncio.to_thread(httpx2.create_ssl_context)
    return RemoteConnection(settings, client_of(settings, tls))


async def json_body(response: httpx2.Response) -> Any:
    """Return the whole body of an answer as JSON.

    Raises:
        ValueError: it is none, or too large.
    """
    return orjson.loads(await _read(response, MAX_BODY_BYTES))


def problem_of(failure: httpx2.TransportError) -> str:
    """Return what went wrong, in a few words."""
    if isinstance(failure, httpx2.TimeoutException):
        return "it does not accept the connection in time" if _is_connect(failure) else "it sends nothing"
    return str(failure) or type(failure).__name__


def _is_connect(failure: httpx2.TimeoutException) -> bool:
    return isinstance(failure, httpx2.ConnectTimeout)


def _forwarded(forwarding: Forwarding) -> dict[str, str]:
    headers = {HOPS_HEADER: ",".join(forwarding.hops)} if forwarding.hops else {}
    if forwarding.session:
        headers[SESSION_HEADER] = forwarding.session
    if forwarding.request_id:
        headers["x-request-id"] = forwarding.request_id
    return headers


async def _error_body(response: httpx2.Response) -> Any:
    """Return the body of an error: JSON, or the beginning of its text."""
    try:
        body = await _read(response, MAX_ERROR_BYTES)
    except ValueError:
        return ""
    try:
        return json.loads(body)
    except ValueError:
        # Error pages of proxies are HTML, which is unreadable in a message.
        text = body[:500].decode("utf-8", "replace").strip()
        return "" if text.startswith("<") else text


async def _read(response: httpx2.Response, limit: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    async for piece in response.aiter_raw():
        size += len(piece)
        if size > limit:
            raise ValueError(f"an answer of more than {limit:,} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def _retry_after_s(headers: Mapping[str, str]) -> int | None:
    """Return the whole seconds of Retry-After; None where it is missing, or a date."""
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        return None
    return max(1, min(MAX_RETRY_AFTER_S, round(seconds))) if 0 <= seconds < 1e9 else None
