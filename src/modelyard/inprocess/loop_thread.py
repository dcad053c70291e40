"""An event loop on a thread of its own, which other threads hand their work to."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

from modelyard.errors import Closed, ForkedProcess

_T = TypeVar("_T")
_Held = TypeVar("_Held")

# What ends with the interpreter has so long to end in order.
EXIT_S = 15.0


class LoopThread(Generic[_Held]):
    """A thread that enters a context on an event loop, and leaves it when it is closed, or the interpreter exits.

    Args:
        holding: makes the context, which is entered before the constructor returns.
        name: of the thread.

    Raises:
        BaseException: whatever entering the context raised; the thread has ended then. Also an interrupt of the
            waiting caller, which cancels the entering.
    """

    def __init__(self, holding: Callable[[], AbstractAsyncContextManager[_Held]], name: str) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._is_closed = False
        self.loop = asyncio.new_event_loop()
        # A daemon, as an interpreter waits for others before it tells anybody that it exits.
        self._thread = threading.Thread(target=self._run, args=(holding,), name=name, daemon=True)
        self._entered: Future[_Held] = Future()
        self._closing, self._leaving = asyncio.Event(), asyncio.Event()
        self._works: set[asyncio.Task[Any]] = set()
        atexit.register(self._exit)
        self._thread.start()
        try:
            self.held = self._entered.result()
        except BaseException:
            self.close()
            raise

    def call(self, work: Callable[[_Held], Coroutine[Any, Any, _T]]) -> _T:
        """Do ``work`` on the loop and wait for it. Whatever interrupts the wait, cancels it.

        Raises:
            Closed: before, or while it was done.
            ForkedProcess: this is a child of the process that the thread is in.
            BaseException: whatever the work raises.
        """
        future = self.submit(work)
        try:
            return future.result()
        except CancelledError:
            raise Closed from None
        except BaseException:
            future.cancel()
            raise

    def submit(self, work: Callable[[_Held], Coroutine[Any, Any, _T]]) -> Future[_T]:
        """Have ``work`` done on the loop.

        Raises:
            Closed, ForkedProcess: as ``call``.
        """
        self.check()
        if threading.current_thread() is self._thread:
            raise RuntimeError("This call would wait for its own thread. Call the AsyncModel, or another thread.")
        with self._lock:
            if self._is_closed:
                raise Closed
            return asyncio.run_coroutine_threadsafe(self._do(work), self.loop)

    def look(self, at: Callable[[_Held], _T]) -> _T:
        """What ``at`` returns on the loop.

        Raises:
            as ``call``.
        """

        async def looking(held: _Held) -> _T:
            return at(held)

        return self.call(looking)

    def check(self) -> None:
        """Refuse what cannot be done any more.

        Raises:
            Closed, ForkedProcess: as ``call``.
        """
        if os.getpid() != self._pid:
            raise ForkedProcess(self._pid)
        if self._is_closed:
            raise Closed

    def ask_to_end(self) -> None:
        """Close, and wait for nothing. In a forked child, which has no such thread, it does nothing."""
        if os.getpid() == self._pid:
            with contextlib.suppress(RuntimeError):
                # The loop is closed already.
                self.loop.call_soon_threadsafe(self._closing.set)

    def close(self, timeout_s: float | None = None) -> None:
        """Cancel what is being done, leave the context, end the thread. Idempotent, and callable from any thread."""
        self.ask_to_end()
        if os.getpid() == self._pid and threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def _exit(self) -> None:
        self.close(EXIT_S)

    def _run(self, holding: Callable[[], AbstractAsyncContextManager[_Held]]) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._live(holding))
        atexit.unregister(self._exit)

    async def _do(self, work: Callable[[_Held], Coroutine[Any, Any, _T]]) -> _T:
        task = asyncio.current_task()
        assert task is not None
        self._works.add(task)
        try:
            return await work(self.held)
        finally:
            self._works.discard(task)

    async def _live(self, holding: Callable[[], AbstractAsyncContextManager[_Held]]) -> None:
        life = asyncio.create_task(self._hold(holding))
        closing = asyncio.create_task(self._closing.wait())
        await asyncio.wait((life, closing), return_when=asyncio.FIRST_COMPLETED)
        with self._lock:
            self._is_closed = True
        # What was handed over before that has begun then.
        await asyncio.sleep(0)
        for work in self._works:
            work.cancel()
        self._leaving.set()
        if not self._entered.done():
            life.cancel()
        await asyncio.wait((life,))
        closing.cancel()
        if not self._entered.done():
            self._entered.set_exception(Closed())

    async def _hold(self, holding: Callable[[], AbstractAsyncContextManager[_Held]]) -> None:
        async with contextlib.AsyncExitStack() as stack:
            try:
                held = await stack.enter_async_context(holding())
            except asyncio.CancelledError:
                raise
            except BaseException as failure:  # noqa: BLE001 (raised where the context is wanted)
                self._entered.set_exception(failure)
                return
            self._entered.set_result(held)
            await self._leaving.wait()
