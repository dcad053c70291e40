"""Flow control of a connection's body that shares the event loop with other bodies and with short requests."""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.flow_control import FlowControl

from modelyard.inprocess.http_server.turns import Turns

MAX_READS_AT_ONCE: Final = 1
"""Connections that go on to read a body in one iteration of the event loop. Each reads up to 256 KiB: in 0.2 ms on a
core of its own, and in 1 ms beside others that compute."""


class ReadInTurns(FlowControl):
    """Resumes reading in turn, so that many large bodies do not hold up other connections.

    Args:
        transport: of the connection.
        turns: of all connections, with ``MAX_READS_AT_ONCE``.
    """

    def __init__(self, transport: asyncio.Transport, turns: Turns) -> None:
        super().__init__(transport)
        self._reader, self._turns = transport, turns

    def resume_reading(self) -> None:
        """Read on in this iteration of the event loop or in a later one, if reading was paused."""
        if self.read_paused:
            self.read_paused = False
            self._turns.call(self._resume)

    def _resume(self) -> None:
        # It may have been paused again, or closed, while it waited for its turn.
        if not self.read_paused and not self._reader.is_closing():
            self._reader.resume_reading()
