"""The tool calls of one HTTP request, which end when its client disconnects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import anyio
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR
from starlette.types import Scope

_KEY: Final = "modelyard.mcp.calls"


class Calls:
    """The calls that one HTTP request has brought, and that run."""

    def __init__(self, scope: Scope) -> None:
        self._running: set[anyio.CancelScope] = set()
        self._is_over = False
        scope[_KEY] = self

    @staticmethod
    def of(scope: Scope) -> Calls:
        """Return the calls of the request of ``scope``."""
        calls: Calls = scope[_KEY]
        return calls

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run a call within the context, which is cancelled when the request ends.

        Raises:
            MCPError: the request has ended.
        """
        with anyio.CancelScope() as call:
            if self._is_over:
                call.cancel()
            self._running.add(call)
            try:
                yield
            finally:
                self._running.discard(call)
        if call.cancelled_caught:
            raise MCPError(INTERNAL_ERROR, "The client has disconnected.")

    def end(self) -> None:
        """Cancel the calls that still run: nobody reads their results."""
        self._is_over = True
        for call in self._running:
            call.cancel()
