"""Work that is begun where it comes up, and needs a task only if it has to wait. Hot path: once a frame."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Generator
from typing import Any


def begin(work: Awaitable[None]) -> Awaitable[None] | None:
    """Do ``work`` as far as it goes without waiting: None where that was all; else what a task is to await.

    As asyncio's eager tasks do from Python 3.12 on. It does not raise: what is to be awaited does.
    """
    steps = work.__await__()
    try:
        waits_for = next(steps)
    except StopIteration:
        return None
    except Exception as failure:  # noqa: BLE001 (raised where it is awaited)
        return _raise(failure)
    return _go_on(steps, waits_for)


@types.coroutine
def _go_on(steps: Generator[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    try:
        yield waits_for
        yield from steps
    finally:
        steps.close()


@types.coroutine
def _raise(failure: Exception) -> Generator[Any, Any, None]:
    raise failure
    yield
