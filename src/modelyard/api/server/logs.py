"""GET /v1/logs: the last lines of the log, and those that follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Header, Query
from fastapi import Request as HttpRequest
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from modelyard.api.middleware.authorization import needs
from modelyard.api.server.log_ring import MAX_LINES, LogLine, LogRing, mentions
from modelyard.api.services import Services
from modelyard.api.serving.streaming import EVENT_STREAM, KEEP_ALIVE_S, while_connected
from modelyard.errors import UnsupportedOperation

Filter = Callable[[LogLine], bool]


def line_object(line: LogLine) -> dict[str, Any]:
    """Return a line of the log."""
    return {
        "id": line.id,
        "time": datetime.fromtimestamp(line.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": line.level,
        "logger": line.logger,
        "message": line.message,
    }


def _frame(line: LogLine) -> bytes:
    return b"id: " + line.id.encode() + b"\nevent: log\ndata: " + orjson.dumps(line_object(line)) + b"\n\n"


class LogStream(Response):
    """A stream of server-sent events: the lines ``begins_with``, then every later one that passes ``filters``."""

    def __init__(self, ring: LogRing, begins_with: Sequence[LogLine], last: int, is_wanted: Filter) -> None:
        super().__init__()
        self._ring, self._begins_with, self._last, self._is_wanted = ring, begins_with, last, is_wanted

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client disconnects or the server stops."""
        await while_connected(receive, self._stream(send))

    async def _stream(self, send: Send) -> None:
        with self._ring.follower() as follower:
            await send({"type": "http.response.start", "status": 200, "headers": EVENT_STREAM})
            # With the lines that have come since those of the beginning were taken, which wake no follower. The first
            # body goes out also without a line, so that the client learns that it is connected.
            body = b"".join(map(_frame, self._begins_with)) + self._news() or b": no lines yet\n\n"
            while True:
                await send({"type": "http.response.body", "body": body, "more_body": True})
                if follower.is_over:
                    break
                await follower.wait(KEEP_ALIVE_S)
                body = self._news() or b": keep-alive\n\n"
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _news(self) -> bytes:
        """Return the frames of the lines since the last call."""
        lines = self._ring.lines(self._last)
        self._last = lines[-1].number if lines else self._last
        return b"".join(_frame(line) for line in lines if self._is_wanted(line))


router = APIRouter()


@router.get("/v1/logs", response_model=None)
@needs("admin", all_models=True)
async def read_logs(
    http: HttpRequest,
    lines: Annotated[int, Query(ge=0, le=MAX_LINES)] = 100,
    since: float | None = None,
    model: str | None = None,
    follow: bool = False,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """The last lines of the log; with `follow`, these and all later ones, as server-sent events.

    `lines` is their number, `since` the earliest time in seconds since 1970, `model` the id or alias of a model that
    they name. A client that connects again with `Last-Event-ID` gets what it has missed.
    """
    ring: LogRing | None = http.app.state.log_ring
    if ring is None:
        raise UnsupportedOperation("This server keeps no log in memory: `modelyard serve` does.")
    is_about = None if model is None else mentions(Services.of(http).yard.model(model).id)

    def is_wanted(line: LogLine) -> bool:
        return (since is None or line.time >= since) and (is_about is None or is_about(line))

    after = 0 if last_event_id is None else ring.number_of(last_event_id)
    kept = ring.lines(after)
    last = kept[-1].number if kept else after
    wanted = [line for line in kept if is_wanted(line)]
    if last_event_id is None:
        wanted = wanted[len(wanted) - min(lines, len(wanted)) :]
    if follow:
        return LogStream(ring, wanted, last, is_wanted)
    found = {"object": "list", "data": [line_object(line) for line in wanted]}
    return Response(orjson.dumps(found), media_type="application/json")
