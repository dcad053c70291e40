"""Reports the progress of one tool call to its client, at a bounded rate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

MIN_INTERVAL_S: Final = 0.1
"""Least time between two reports of a call. What happens meanwhile becomes one report."""

# By how much the progress grows where there is news of an answer, and no further token.
_STEP: Final = 0.001

SendProgress = Callable[[float, float | None, str | None], Awaitable[None]]
"""Sends one report: the progress, which grows with each report, what it grows to, and a message."""


class CallProgress:
    """The progress of one call: first of the load of its model, from 0 to 1, then the tokens of its answer.

    Reports wait for a client that does not read; the call itself does not. Text that arrives meanwhile becomes one
    message.

    Args:
        send: sends a report; None: the client did not ask for any.
    """

    def __init__(self, send: SendProgress | None) -> None:
        self._send = send
        self._news, self._is_over = asyncio.Event(), asyncio.Event()
        self._sent = self._progress = -1.0
        self._total: float | None = None
        self._stage: str | None = None
        self._text: list[str] = []

    @property
    def is_wanted(self) -> bool:
        """Whether the client asked for reports."""
        return self._send is not None

    def loading(self, fraction: float, stage: str) -> None:
        """Take news of a load: how much of it is done, from 0 to 1, and what is done at the moment."""
        # Tokens are counted from 1 on.
        done = min(fraction, 0.999)
        if done > self._progress:
            self._progress, self._stage = done, stage
            self._news.set()

    def generated(self, tokens: int, text: str, total: int | None) -> None:
        """Take news of an answer: the tokens so far, the text since the last call, and the bound of the tokens."""
        self._progress, self._total = max(self._progress, float(tokens)), total
        if text:
            self._text.append(text)
        self._news.set()

    def calling(self, tokens: int, tool: str) -> None:
        """Take news of an answer whose model calls a tool of the server, after ``tokens``."""
        self._progress, self._stage = max(self._progress, float(tokens)), f"calls {tool}"
        self._news.set()

    @asynccontextmanager
    async def reported(self) -> AsyncIterator[None]:
        """Report within the context; its end sends what is left, unless the call has failed."""
        if self._send is None:
            yield
            return
        reporting = asyncio.create_task(self._report(self._send))
        try:
            yield
            self._is_over.set()
            self._news.set()
            await reporting
        finally:
            reporting.cancel()
            await asyncio.gather(reporting, return_exceptions=True)

    async def _report(self, send: SendProgress) -> None:
        while not self._is_over.is_set():
            await self._news.wait()
            self._news.clear()
            await self._flush(send)
            with suppress(TimeoutError):
                async with asyncio.timeout(MIN_INTERVAL_S):
                    await self._is_over.wait()
        await self._flush(send)

    async def _flush(self, send: SendProgress) -> None:
        """Send a report, unless there is no news since the last one."""
        message, self._text = "".join(self._text) or self._stage, []
        self._stage = None
        if self._progress <= self._sent and message is None:
            return
        # The protocol requires that every report is greater than the one before.
        self._sent = max(self._progress, self._sent + _STEP)
        await send(self._sent, self._total, message)
