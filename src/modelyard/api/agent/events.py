"""The stream of GET /v1/agent/approvals/events: the calls that wait, then every change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from modelyard.agent.approvals import ApprovalChange, ApprovalDesk, PendingApproval
from modelyard.api.serving.streaming import EVENT_STREAM, KEEP_ALIVE_S, while_connected
from modelyard.yard.stats.status_broadcaster import Observer
from modelyard.yard.yard import Yard


class ApprovalEventStream(Response):
    """A stream of server-sent events, until the client disconnects or the yard closes.

    Args:
        yard: the models.
        approvals: the calls that wait.
        is_visible: whether the client may see a call.
        show: returns a call as the client sees it.
    """

    def __init__(
        self,
        yard: Yard,
        approvals: ApprovalDesk,
        is_visible: Callable[[PendingApproval], bool],
        show: Callable[[PendingApproval], dict[str, Any]],
    ) -> None:
        super().__init__()
        self._yard, self._approvals, self._is_visible, self._show = yard, approvals, is_visible, show

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client disconnects or the yard closes."""
        await while_connected(receive, self._stream(send))

    async def _stream(self, send: Send) -> None:
        with self._yard.observer() as models, self._approvals.observer() as observer:
            # Before anything is sent: meanwhile others may begin to wait, which the observer tells.
            waiting = [each for each in self._approvals.pending(None, sees_all=True) if self._is_visible(each)]
            body = b"".join(self._frame(ApprovalChange(each, "waiting")) for each in waiting) or b": waiting\n\n"
            await send({"type": "http.response.start", "status": 200, "headers": EVENT_STREAM})
            changes: AsyncIterator[ApprovalChange] = aiter(observer)
            closing = asyncio.create_task(_over(models))
            change = asyncio.ensure_future(anext(changes))
            try:
                while not closing.done():
                    if body:
                        await send({"type": "http.response.body", "body": body, "more_body": True})
                    tasks: list[asyncio.Future[Any]] = [change, closing]
                    done, _ = await asyncio.wait(tasks, timeout=KEEP_ALIVE_S, return_when=asyncio.FIRST_COMPLETED)
                    body = b": keep-alive\n\n"
                    if change in done:
                        body = self._frame(change.result())
                        change = asyncio.ensure_future(anext(changes))
            except StopAsyncIteration:
                # The client reads too slowly: it connects again, and begins with those that wait.
                pass
            finally:
                for task in (change, closing):
                    task.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _frame(self, change: ApprovalChange) -> bytes:
        """Return the event of a change; b"" where the client may not see the call."""
        if not self._is_visible(change.pending):
            return b""
        shown = {**self._show(change.pending), "status": change.state}
        return b"event: approval\ndata: " + orjson.dumps(shown) + b"\n\n"


async def _over(models: Observer) -> None:
    """Wait until the yard closes, which ends its observers."""
    async for _ in models:
        pass
