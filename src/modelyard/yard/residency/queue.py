"""The queue of a model: in which order it is served. Pure.

Requests are ordered by priority, and those of one priority by arrival. Suspended requests, and those that continue an
answer, precede all others, because they have started. An unload that waits (to drain, or to park) is a barrier that
later requests do not pass; one that does not wait goes to the front.
"""

from __future__ import annotations

from modelyard.yard.residency.waiting import RequestId, Waiter, WaitKind

Queue = tuple[Waiter, ...]


def enqueued(queue: Queue, waiter: Waiter) -> Queue:
    """Return the queue with ``waiter`` in its place."""
    if waiter.kind is WaitKind.UNLOAD:
        return (*queue, waiter) if waiter.mode.waits else (waiter, *queue)
    at = len(queue)
    while at and queue[at - 1].kind in (WaitKind.LEASE, WaitKind.LOAD) and queue[at - 1].priority < waiter.priority:
        at -= 1
    return (*queue[:at], waiter, *queue[at:])


def requeued(queue: Queue, waiter: Waiter) -> Queue:
    """Return the queue with a request of an answer that has begun in its place: at the front, behind others of these.

    It also comes behind unloads that do not wait, which may have been asked for while it was being suspended.
    """
    at = 0
    while at < len(queue) and (
        (queue[at].has_begun and queue[at].priority >= waiter.priority)
        or (queue[at].kind is WaitKind.UNLOAD and not queue[at].mode.waits)
    ):
        at += 1
    return (*queue[:at], waiter, *queue[at:])


def without(queue: Queue, request: RequestId) -> Queue:
    """Return the queue without ``request``."""
    return tuple(waiter for waiter in queue if waiter.request != request) if queue else queue
