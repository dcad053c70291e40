"""An event loop on a thread of its own, which runs the coroutines that other threads submit."""

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

from modelyard.errors import Closed, ForkedProcess, ModelyardError, WrongEventLoop
from modelyard.inprocess.caller import caller_kept

_T = TypeVar("_T")
_Value_co = TypeVar("_Value_co", covariant=True)

# How long the exit of the interpreter waits for the context to be left.
EXIT_S = 15.0


class LoopThread(Generic[_Value_co]):
    """A thread that enters a context on an event loop, and leaves it on ``close`` or when the interpreter exits.

    Args:
        make_context: makes the context, which is entered before the constructor returns.
        name: the name of the thread.

    Attributes:
        value: the value of the context.

    Raises:
        BaseException: the exception that entering the context raised, or an interrupt of the caller, which cancels the
            entering. The thread has ended then.
    """

    def __init__(self, make_context: Callable[[], AbstractAsyncContextManager[_Value_co]], name: str) -> None:
        self._pid = os.getpid()
        # A finalizer may submit work within ``submit`` itself, on the same thread.
        self._lock = threading.RLock()
        self._is_closed = False
        self.loop = asyncio.new_event_loop()
        # The interpreter joins threads that are no daemons before it runs atexit functions.
        self._thread = threading.Thread(target=self._run, args=(make_context,), name=name, daemon=True)
        self._entered: Future[_Value_co] = Future()
        self._closing, self._leaving = asyncio.Event(), asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        atexit.register(self._exit)
        self._thread.start()
        try:
            self.value = outcome(self._entered)
        except BaseException:
            self.close()
            raise

    def call(self, work: Callable[[_Value_co], Coroutine[Any, Any, _T]]) -> _T:
        """Run ``work`` on the event loop and wait for it. An exception that interrupts the wait cancels the work.

        Raises:
            Closed: the thread was closed before the work ended.
            ForkedProcess: the caller is in a forked child, which has no such thread.
            BaseException: the exception that the work raised.
        """
        future = self.submit(work)
        try:
            return outcome(future)
        except BaseException:
            future.cancel()
            raise

    def submit(self, work: Callable[[_Value_co], Coroutine[Any, Any, _T]]) -> Future[_T]:
        """Start ``work`` on the event loop.

        Raises:
            Closed, ForkedProcess: as ``call``.
            WrongEventLoop: the caller is on the event loop itself.
        """
        self.check_caller()
        return self.post(work)

    def check_caller(self) -> None:
        """Raise an error if the calling thread cannot wait for work.

        Raises:
            Closed, ForkedProcess: as ``call``.
            WrongEventLoop: the caller is on the event loop itself.
        """
        self.check()
        if threading.current_thread() is self._thread:
            raise WrongEventLoop(
                "This call came from the thread of the model's own event loop, and would wait for itself for ever. "
                "Call the model from another thread."
            )

    def wake(self, function: Callable[[], object]) -> None:
        """Call ``function`` on the event loop soon; do nothing once it is closed."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(function)

    def post(self, work: Callable[[_Value_co], Coroutine[Any, Any, _T]]) -> Future[_T]:
        """Start ``work`` on the event loop, for callers that do not wait for it: they may be on any thread.

        Raises:
            Closed, ForkedProcess: as ``call``.
        """
        self.check()
        with self._lock:
            if self._is_closed:
                raise Closed
            # The task takes over the context variables of this thread.
            with caller_kept():
                return asyncio.run_coroutine_threadsafe(self._do(work), self.loop)

    def call_sync(self, function: Callable[[_Value_co], _T]) -> _T:
        """Run ``function``, which does not block, on the event loop and return its result.

        Raises:
            BaseException: as ``call``.
        """

        async def run(value: Any) -> _T:
            return function(value)

        return self.call(run)

    @property
    def is_closed(self) -> bool:
        """Whether no more work can be submitted: it was closed, or belongs to the parent of this process."""
        return self._is_closed or os.getpid() != self._pid

    def check(self) -> None:
        """Raise an error if no more work can be submitted.

        Raises:
            Closed, ForkedProcess: as ``call``.
        """
        if os.getpid() != self._pid:
            raise ForkedProcess(self._pid)
        if self._is_closed:
            raise Closed

    def request_close(self) -> None:
        """Start to close, without waiting. Does nothing in a forked child, which has no such thread."""
        if os.getpid() == self._pid:
            # A loop that is closed already raises RuntimeError.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._closing.set)

    def close(self, timeout_s: float | None = None) -> None:
        """Cancel submitted work, leave the context and end the thread. Idempotent and thread-safe."""
        self.request_close()
        if os.getpid() == self._pid and threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def _exit(self) -> None:
        self.close(EXIT_S)

    def _run(self, make_context: Callable[[], AbstractAsyncContextManager[_Value_co]]) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._main(make_context))
        atexit.unregister(self._exit)

    async def _do(self, work: Callable[[_Value_co], Coroutine[Any, Any, _T]]) -> _T:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            return await work(self.value)
        finally:
            self._tasks.discard(task)

    async def _main(self, make_context: Callable[[], AbstractAsyncContextManager[_Value_co]]) -> None:
        holding = asyncio.create_task(self._hold_context(make_context))
        closing = asyncio.create_task(self._closing.wait())
        await asyncio.wait((holding, closing), return_when=asyncio.FIRST_COMPLETED)
        with self._lock:
            self._is_closed = True
        # Work that was submitted before this point starts during one turn of the loop.
        await asyncio.sleep(0)
        for task in self._tasks:
            task.cancel()
        self._leaving.set()
        if not self._entered.done():
            holding.cancel()
        await asyncio.wait((holding,))
        closing.cancel()
        if not self._entered.done():
            self._entered.set_exception(Closed())

    async def _hold_context(self, make_context: Callable[[], AbstractAsyncContextManager[_Value_co]]) -> None:
        async with contextlib.AsyncExitStack() as stack:
            try:
                value = await stack.enter_async_context(make_context())
            except asyncio.CancelledError:
                raise
            except BaseException as failure:  # noqa: BLE001 (raised by the constructor)
                self._entered.set_exception(failure)
                return
            self._entered.set_result(value)
            await self._leaving.wait()


def outcome(future: Future[_T]) -> _T:
    """Wait for work that was submitted to a LoopThread, and return its result.

    Raises:
        Closed: the thread was closed before the work ended.
        BaseException: the exception that the work raised.
    """
    try:
        return future.result()
    except CancelledError:
        raise Closed from None
    except ModelyardError as error:
        raise without_loop_frames(error) from error.__cause__


def without_loop_frames(error: Exception) -> Exception:
    """Return ``error`` without its traceback, if it is one of ours.

    Its message says what to do; a traceback through this module and the event loop would bury it.
    """
    return error.with_traceback(None) if isinstance(error, ModelyardError) else error
