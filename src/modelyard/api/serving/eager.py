"""Starts an awaitable without a task, and needs a task only if it has to wait. Hot path: once a frame."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Generator
from typing import Any


def start_eagerly(work: Awaitable[None]) -> Awaitable[None] | None:
    """Run ``work`` until it waits; return None if it has ended, else the rest of it, which a task must await.

    Works like asyncio's eager tasks of Python 3.12. An exception is raised where the rest is awaited.
    """
    steps = work.__await__()
    try:
        first = next(steps)
    except StopIteration:
        return None
    except Exception as failure:  # noqa: BLE001 (raised where it is awaited)
        return _raise(failure)
    return _resume(steps, first)


@types.coroutine
def _resume(steps: Generator[Any, Any, None], first: Any) -> Generator[Any, Any, None]:
    try:
        yield first
        yield from steps
    finally:
        steps.close()


@types.coroutine
def _raise(failure: Exception) -> Generator[Any, Any, None]:
    raise failure
    yield
