"""Runs functions of a program: those that block on threads, coroutines on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final

from modelyard.inprocess.tools.outcome import Raised, caught, caught_async

MAX_THREADS: Final = 32
"""Functions of a program that run at the same time; further calls wait for one to return."""


class FunctionRunner:
    """Runs functions for callers on one event loop.

    A function that hangs keeps its thread, and its place among ``max_threads``. The thread is a daemon, which a thread
    of ``concurrent.futures`` is not: the interpreter exits without waiting for it.

    Args:
        max_threads: functions that block and run at the same time.
    """

    def __init__(self, max_threads: int = MAX_THREADS) -> None:
        self._places = asyncio.Semaphore(max_threads)
        # An event loop keeps weak references only to its tasks.
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, function: Callable[[], Any], name: str, *, is_async: bool) -> Any:
        """Run ``function`` in the caller's context; return what it returns, awaited if it must be, or ``Raised``.

        A cancelled call returns at once. It cancels a coroutine; a thread runs on, and nobody reads its result.

        Args:
            function: takes no arguments.
            name: of its thread.
            is_async: whether it returns a coroutine, and blocks nothing.
        """
        if is_async:
            return await self._awaited(function)
        returned = await self._on_thread(function, name)
        # A function without ``async def`` may still return what has to be awaited.
        return await self._awaited(lambda: returned) if inspect.isawaitable(returned) else returned

    async def _on_thread(self, function: Callable[[], Any], name: str) -> Any:
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()

        def run() -> None:
            outcome = caught(lambda: context.run(function))
            # The event loop may be closed by now.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(end, outcome)

        def end(outcome: Any) -> None:
            self._places.release()
            if not ended.done():
                ended.set_result(outcome)

        try:
            threading.Thread(target=run, name=name, daemon=True).start()
        except BaseException:
            self._places.release()
            raise
        return await ended

    async def _awaited(self, begin: Callable[[], Awaitable[Any]]) -> Any | Raised:
        """Return what a coroutine returns, or ``Raised``.

        It is a task of its own: one that catches its cancellation does not keep the caller waiting.
        """
        task = asyncio.create_task(caught_async(begin))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            await asyncio.wait((task,))
        finally:
            task.cancel()
        return task.result()
