"""The stream of GET /v1/agent/approvals/events: the calls that wait, then every change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from modelyard.agent.approvals import ApprovalChange, ApprovalDesk, PendingApproval
from modelyard.api.serving.event_stream import EventStream
from modelyard.yard.stats.broadcast import Observer
from modelyard.yard.yard import Yard


def approval_event_stream(
    yard: Yard,
    approvals: ApprovalDesk,
    is_visible: Callable[[PendingApproval], bool],
    show: Callable[[PendingApproval], dict[str, Any]],
) -> EventStream[ApprovalChange]:
    """Return a stream of the calls that wait, which ends with the observers of ``yard``.

    Args:
        yard: the models.
        approvals: the calls that wait.
        is_visible: whether the client may see a call.
        show: returns a call as the client sees it.
    """

    @contextmanager
    def observed() -> Iterator[Observer[ApprovalChange]]:
        with approvals.observer() as observer, yard.monitor.ending(observer.end):
            yield observer

    def opening() -> bytes:
        waiting = approvals.pending(None, sees_all=True)
        return b"".join(frame(ApprovalChange(each, "waiting")) for each in waiting) or b": waiting\n\n"

    def frame(change: ApprovalChange) -> bytes:
        if not is_visible(change.pending):
            return b""
        shown = {**show(change.pending), "status": change.state}
        return b"event: approval\ndata: " + orjson.dumps(shown) + b"\n\n"

    return EventStream(observed, opening, frame)
