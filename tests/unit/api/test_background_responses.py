"""What a response in the background holds of the memory of requests, it holds until it is made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from modelyard.api.openai.responses.background import Background
from modelyard.api.openai.responses.frames import ResponseFrames
from modelyard.api.serving.request_memory import LEASE, RequestMemory
from modelyard.errors import EngineError, QueueFull
from modelyard.yard.requests.requests import Request
from modelyard.yard.yard import Yard

MIB = 1 << 20
NAME = "resp_1"
WAIT_S = 20.0
REQUEST = cast("Request", None)


class Making:
    """A generation that says nothing until it is over, and the yard that makes it."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.is_over = asyncio.Event()
        self._failure = failure

    @contextmanager
    def submit(self, _request: Request) -> Iterator[Making]:
        yield self

    async def accepted(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def __aiter__(self) -> AsyncIterator[str]:
        await self.is_over.wait()
        yield "done"

    def outcome(self) -> None:
        return None


def frames() -> ResponseFrames:
    def ignored(*_: Any) -> None:
        return None

    fake = SimpleNamespace(response={"id": NAME, "model": "m"}, open=ignored, text=ignored, close=ignored, fail=ignored)
    return cast("ResponseFrames", fake)


async def begun(background: Background, memory: RequestMemory) -> asyncio.Task[None]:
    """The task that makes a response whose HTTP request, with 10 MiB, is over."""
    with memory.lease() as lease:
        await lease.grow(10 * MIB)
        LEASE.set(lease)
        background.start(REQUEST, frames())
    return next(task for task in asyncio.all_tasks() if task.get_name() == NAME)


async def test_its_memory_is_counted_until_it_is_made() -> None:
    making, memory = Making(), RequestMemory(100 * MIB)
    task = await begun(Background(cast("Yard", making)), memory)
    assert memory.used == 10 * MIB
    making.is_over.set()
    await asyncio.wait((task,), timeout=WAIT_S)
    assert memory.used == 0


async def test_its_memory_is_given_back_when_it_is_cancelled() -> None:
    memory = RequestMemory(100 * MIB)
    background = Background(cast("Yard", Making()))
    task = await begun(background, memory)
    assert background.cancel(NAME)
    await asyncio.wait((task,), timeout=WAIT_S)
    assert memory.used == 0


async def test_its_memory_is_given_back_when_it_fails() -> None:
    memory = RequestMemory(100 * MIB)
    task = await begun(Background(cast("Yard", Making(EngineError("m", "it ended")))), memory)
    await asyncio.wait((task,), timeout=WAIT_S)
    assert memory.used == 0


async def test_one_that_is_refused_keeps_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.api.openai.responses.background.MAX_IN_BACKGROUND", 0)
    memory = RequestMemory(100 * MIB)
    with pytest.raises(QueueFull):
        await begun(Background(cast("Yard", Making())), memory)
    assert memory.used == 0
