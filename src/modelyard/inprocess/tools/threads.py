"""Threads for functions that block: at most so many at a time, and none that the process waits for at its end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from modelyard.inprocess.tools.outcome import Raised, caught

MAX_THREADS: Final = 32
"""Functions of a program that run at the same time; further calls wait for one to return."""

_T = TypeVar("_T")


class FunctionThreads:
    """Runs functions on threads, for callers on one event loop.

    A function that hangs keeps its thread, and its place among ``max_threads``. The thread is a daemon, which a thread
    of ``concurrent.futures`` is not: the interpreter exits without waiting for it.

    Args:
        max_threads: functions that run at the same time.
    """

    def __init__(self, max_threads: int = MAX_THREADS) -> None:
        self._places = asyncio.Semaphore(max_threads)

    async def run(self, function: Callable[[], _T], name: str) -> _T | Raised:
        """Run ``function`` on a thread with this name, in the caller's context, and return what it returns or raises.

        A cancelled call returns at once; the function runs on, and nobody reads its result.
        """
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[_T | Raised] = loop.create_future()
        context = contextvars.copy_context()

        def run() -> None:
            outcome = caught(lambda: context.run(function))
            # The event loop may be closed by now.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(end, outcome)

        def end(outcome: _T | Raised) -> None:
            self._places.release()
            if not ended.done():
                ended.set_result(outcome)

        try:
            threading.Thread(target=run, name=name, daemon=True).start()
        except BaseException:
            self._places.release()
            raise
        return await ended
