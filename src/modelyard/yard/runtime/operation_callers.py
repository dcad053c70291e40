"""Callers that wait for an operation on a model, such as an unload, to be done."""

from __future__ import annotations

import asyncio

from modelyard.yard.residency.waiting import RequestId


class OperationCallers:
    """A future for each operation that is not done, on one event loop.

    Attributes:
        waiting: the futures, by number of the operation.
    """

    def __init__(self) -> None:
        self.waiting: dict[RequestId, asyncio.Future[None]] = {}
        self._loop = asyncio.get_running_loop()

    def add(self, request: RequestId) -> asyncio.Future[None]:
        """Return the future of operation ``request``."""
        caller = self.waiting[request] = self._loop.create_future()
        caller.add_done_callback(lambda done: self._dismiss(request, done))
        return caller

    def complete(self, request: RequestId) -> None:
        """End the wait of the caller of ``request``, if it still waits."""
        caller = self.waiting.get(request)
        if caller is not None and not caller.done():
            caller.set_result(None)

    def fail(self, request: RequestId, error: Exception) -> None:
        """Raise ``error`` in the caller of ``request``, if it still waits."""
        caller = self.waiting.get(request)
        if caller is not None and not caller.done():
            caller.set_exception(error)

    def _dismiss(self, request: RequestId, caller: asyncio.Future[None]) -> None:
        self.waiting.pop(request, None)
        if not caller.cancelled():
            # Marks the exception as retrieved: asyncio warns about one whose caller has gone.
            caller.exception()
