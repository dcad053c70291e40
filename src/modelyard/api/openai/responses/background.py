"""Responses that are made behind their HTTP request, which is answered at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable
from contextlib import ExitStack
from typing import Final

from modelyard.api.openai.responses.frames import ResponseFrames
from modelyard.api.serving.request_memory import LEASE
from modelyard.engine.kv.owner_shares import may_take
from modelyard.errors import ModelyardError, QueueFull
from modelyard.yard.requests.context import current_caller
from modelyard.yard.requests.generation import TokenStream
from modelyard.yard.requests.requests import Request
from modelyard.yard.yard import Yard

MAX_IN_BACKGROUND: Final = 64


class Background:
    """Responses that are made while nobody waits."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self._running: dict[str, asyncio.Task[None]] = {}
        self._held: Counter[Hashable] = Counter()

    def start(self, request: Request, frames: ResponseFrames) -> None:
        """Make a response.

        Raises:
            QueueFull: too many are made already, or as many for this caller as are left for others.
            RateLimited, ConcurrencyLimited: the caller may not have another one now.
        """
        model, owner = frames.response["model"], current_caller().place_owner
        own, total = self._held[owner], self._held.total()
        if total >= MAX_IN_BACKGROUND:
            raise QueueFull(model, total)
        if owner is not None and not may_take(own, total, MAX_IN_BACKGROUND):
            raise QueueFull(model, own, of_key=True)
        asked = ExitStack()
        generation = asked.enter_context(self._yard.submit(request))
        # It does not end with the HTTP request, of which the log would say that it was cancelled.
        if generation in (made := current_caller().requests):
            made.remove(generation)
        if (lease := LEASE.get()) is not None:
            # Its images, and what was parsed from its body, live as long as it is being made.
            asked.enter_context(lease.hand_over())
        name = frames.response["id"]
        task = self._running[name] = asyncio.create_task(self._run(generation, frames), name=name)
        self._held[owner] += 1
        # Not by the task itself: one that is cancelled before it has begun does nothing.
        task.add_done_callback(lambda _: self._end(name, owner, asked))

    def _end(self, name: str, owner: Hashable, asked: ExitStack) -> None:
        self._running.pop(name, None)
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]
        asked.close()

    def cancel(self, name: str) -> bool:
        """Stop making a response; whether it was being made."""
        task = self._running.get(name)
        return task is not None and task.cancel()

    async def _run(self, generation: TokenStream, frames: ResponseFrames) -> None:
        try:
            await generation.accepted()
            frames.open(generation)
            async for text in generation:
                frames.text(text)
            frames.close(generation.outcome())
        except ModelyardError as error:
            frames.fail(error)
