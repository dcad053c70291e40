"""Speaks to the HTTP API of a server, or of models in this process, and queues the events of a stream.

Requests run on the event loop of another thread, so that the main thread can draw, read keys and be interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Final
from urllib.parse import quote, urlencode

import httpx2

from modelyard.cli.chat.tool_calls import ApprovalAsked, ToolStep, tool_events
from modelyard.errors import NotModelyard, ServerRefused, ServerUnreachable, ServerUnusable
from modelyard.inprocess.loop_thread import LoopThread

# A stream is never silent for longer than 10 s, so one that is has lost its server.
_STREAM_TIMEOUT: Final = httpx2.Timeout(60.0, connect=10.0)
_QUICK_TIMEOUT: Final = httpx2.Timeout(20.0, connect=10.0)
# Without a timeout, because the load of a model may take any time; the caller watches its progress meanwhile.
_LOAD_TIMEOUT: Final = httpx2.Timeout(None, connect=10.0)

# Characters of an answer that is no JSON which are quoted in an error.
_MAX_QUOTED: Final = 200

_STILL_RUNNING: Final = "Is it still running?"


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an answer, and of the reasoning before it."""

    text: str = ""
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Comment:
    """What the server says a stream waits for."""

    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of an answer: why, and the server's counts and timings as it sends them."""

    finish_reason: str | None
    usage: Mapping[str, Any]
    timings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """The stream failed."""

    error: ServerUnusable


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The user pressed Ctrl-C."""


StreamEvent = Piece | Comment | ToolStep | ApprovalAsked | Ended | Failed | Interrupt


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model as the server lists it."""

    id: str
    status: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def can_chat(self) -> bool:
        """Whether it has a chat template, as far as that is known: only once it was loaded."""
        return "chat" in self.fields.get("capabilities", ("chat",))

    @property
    def makes_text(self) -> bool:
        """Whether it generates text, as far as that is known."""
        return "completion" in self.fields.get("capabilities", ("completion",))

    @property
    def is_default(self) -> bool:
        """Whether it serves requests that name no model."""
        return bool(self.fields.get("default"))

    @property
    def context_length(self) -> int | None:
        """Limit of tokens of a prompt and its answer together; None until it was loaded."""
        return self.fields.get("context_length")


@dataclass(frozen=True, slots=True)
class ToolEntry:
    """A tool of the server, by the name by which models call it."""

    name: str
    description: str
    needs_approval: bool


class Client:
    """The requests of a chat. Methods are called on the main thread.

    Args:
        thread: runs an HTTP client, whose base URL ends before ``/v1``.
        place: where the server is, for errors.
    """

    def __init__(self, thread: LoopThread[httpx2.AsyncClient], place: str) -> None:
        self._thread, self._place = thread, place

    def models(self) -> list[ModelEntry]:
        """Return all models.

        Raises:
            ServerUnusable: the server cannot be reached, or refuses.
        """
        return [_entry(fields) for fields in self._json("GET", "/v1/models")["data"]]

    def model(self, name: str) -> ModelEntry:
        """Return one model, by id or alias.

        Raises:
            ServerRefused: there is none of that name; see also ``models``.
        """
        return _entry(self._json("GET", f"/v1/models/{quote(name, safe='/')}"))

    def tools(self, model: str) -> list[ToolEntry]:
        """Return the tools of the server that a model may call.

        Raises:
            ServerUnusable: as ``models``.
        """
        listed = self._json("GET", f"/v1/agent/tools?{urlencode({'model': model})}")["data"]
        return [ToolEntry(str(each["name"]), str(each["description"]), bool(each["needs_approval"])) for each in listed]

    def count_tokens(self, body: Mapping[str, Any]) -> int:
        """Return the number of tokens of what ``/v1/tokenize`` is asked for.

        Raises:
            ServerUnusable: as ``models``; also where the prompt is longer than the context.
        """
        return int(self._json("POST", "/v1/tokenize", body, _LOAD_TIMEOUT)["count"])

    def decide(self, approval_id: str, *, is_approved: bool, remembers: bool = False, message: str = "") -> None:
        """Approve or deny a call of a tool that waits for it.

        Args:
            approval_id: of the call.
            is_approved: whether it runs.
            remembers: whether further calls of the tool in the same answer run, too.
            message: why it is denied, for the model.

        Raises:
            ServerRefused: the call waits no longer; see also ``models``.
        """
        body: dict[str, Any] = {"decision": "approve" if is_approved else "deny"}
        if remembers:
            body["remember_for_session"] = True
        if message:
            body["message"] = message
        self._json("POST", f"/v1/agent/approvals/{quote(approval_id, safe='')}", body)

    def begin_load(self, model: str) -> PendingLoad:
        """Start to load a model, unless it is loaded. A request for tokens does that, for which any key is enough."""
        body = {"model": model, "content": ""}
        request = self._thread.submit(
            lambda client: _json(client, "POST", "/v1/tokenize", body, _LOAD_TIMEOUT, self._place)
        )
        return PendingLoad(self, model, request)

    def stream(self, path: str, body: Mapping[str, Any]) -> AnswerStream:
        """Start a request for an answer.

        Args:
            path: of a completion or chat completion.
            body: without the fields that make it a stream.
        """
        return AnswerStream(self._thread, path, body, self._place)

    def _json(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout: httpx2.Timeout = _QUICK_TIMEOUT
    ) -> Any:
        return self._thread.call(lambda client: _json(client, method, path, body, timeout, self._place))


class PendingLoad:
    """A load that runs."""

    def __init__(self, client: Client, model: str, request: Future[Any]) -> None:
        self._client, self._model, self._future = client, model, request

    def wait(self, seconds: float) -> ModelEntry | None:
        """Wait that long at most. Return the model while it loads; None: it is loaded.

        Raises:
            ServerUnusable: the load failed, or the server cannot be reached.
        """
        try:
            self._future.result(seconds)
        except TimeoutError:
            if not self._future.done():
                return self._client.model(self._model)
            self._future.result()
        return None

    def cancel(self) -> None:
        """Wait no longer."""
        self._future.cancel()


class AnswerStream:
    """An answer on its way.

    Attributes:
        events: what has arrived. ``Ended`` or ``Failed`` is the last one that the server causes.
    """

    def __init__(self, thread: LoopThread[httpx2.AsyncClient], path: str, body: Mapping[str, Any], place: str) -> None:
        self.events: SimpleQueue[StreamEvent] = SimpleQueue()
        full = {**body, "stream": True, "stream_options": {"include_usage": True}}
        self._future = thread.submit(lambda client: self._read(client, path, full, place))

    def interrupt(self) -> None:
        """Put an ``Interrupt`` among the events. A signal handler may call it."""
        self.events.put(Interrupt())

    def close(self) -> None:
        """End the request, wherever it is."""
        self._future.cancel()

    async def _read(self, client: httpx2.AsyncClient, path: str, body: Mapping[str, Any], place: str) -> None:
        try:
            async with client.stream("POST", path, json=body, timeout=_STREAM_TIMEOUT) as response:
                if response.status_code != 200:
                    raise _refusal(response.status_code, await response.aread())
                await self._parse(response, place)
        except ServerUnusable as error:
            self.events.put(Failed(error))
        except httpx2.HTTPError as error:
            self.events.put(Failed(_unreachable(place, error)))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self.events.put(Failed(ServerRefused(f"The answer cannot be read: {error}", "internal_error", 500)))
            raise

    async def _parse(self, response: httpx2.Response, place: str) -> None:
        finish: str | None = None
        usage: Mapping[str, Any] = {}
        timings: Mapping[str, Any] = {}
        async for line in response.aiter_lines():
            if line.startswith(":"):
                self.events.put(Comment(line[1:].strip()))
            if not line.startswith("data:"):
                continue
            data = line.removeprefix("data:").strip()
            if data == "[DONE]":
                break
            chunk = json.loads(data)
            if "error" in chunk:
                raise _error(chunk, 500)
            usage, timings = chunk.get("usage") or usage, chunk.get("timings") or timings
            for event in tool_events(chunk):
                self.events.put(event)
            for choice in chunk["choices"]:
                finish = choice.get("finish_reason") or finish
                delta = choice.get("delta") or {"content": choice.get("text")}
                piece = Piece(delta.get("content") or "", delta.get("reasoning_content") or "")
                if piece != Piece():
                    self.events.put(piece)
        else:
            raise ServerUnreachable(place, "the answer broke off in the middle", _STILL_RUNNING)
        self.events.put(Ended(finish, usage, timings))


async def _json(
    client: httpx2.AsyncClient,
    method: str,
    path: str,
    body: Mapping[str, Any] | None,
    limits: httpx2.Timeout,
    place: str,
) -> Any:
    try:
        response = await client.request(method, path, json=body, timeout=limits)
    except httpx2.HTTPError as error:
        raise _unreachable(place, error) from error
    if response.status_code != 200:
        raise _refusal(response.status_code, response.content)
    try:
        return response.json()
    except ValueError as error:
        raise NotModelyard(place, "answered with something else than JSON") from error


def _entry(fields: Mapping[str, Any]) -> ModelEntry:
    return ModelEntry(str(fields["id"]), str(fields.get("status", "unknown")), fields)


def _refusal(status: int, content: bytes) -> ServerRefused:
    with contextlib.suppress(ValueError):
        body = json.loads(content)
        if isinstance(body, dict) and "error" in body:
            return _error(body, status)
    quoted = content[:_MAX_QUOTED].decode(errors="replace")
    return ServerRefused(f"The server answered with status {status}: {quoted}", "internal_error", status)


def _error(body: Mapping[str, Any], status: int) -> ServerRefused:
    error = body["error"]
    if not isinstance(error, dict):
        return ServerRefused(str(error), "internal_error", status)
    return ServerRefused(str(error.get("message") or f"status {status}"), str(error.get("code") or status), status)


def _unreachable(place: str, error: httpx2.HTTPError) -> ServerUnreachable:
    why = "it does not answer in time" if isinstance(error, httpx2.TimeoutException) else str(error)
    return ServerUnreachable(place, why or type(error).__name__, _STILL_RUNNING)
