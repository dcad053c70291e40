"""A response in the background keeps the memory of its request leased until it is done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from modelyard.api.openai.responses.background import Background
from modelyard.api.openai.responses.encoder import ResponseEncoder
from modelyard.api.serving.request_memory import LEASE, RequestMemory
from modelyard.errors import EngineError, QueueFull
from modelyard.yard.requests.requests import Request
from modelyard.yard.yard import Yard

MIB = 1 << 20
NAME = "resp_1"
WAIT_S = 20.0
REQUEST = cast("Request", None)


class FakeYard:
    """A fake yard and its only generation, which yields its text when ``is_over`` is set."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.is_over = asyncio.Event()
        self.dropped: tuple[str, ...] = ()
        self.repairs: tuple[str, ...] = ()
        self._failure = failure

    @contextmanager
    def submit(self, _request: Request) -> Iterator[FakeYard]:
        yield self

    async def accepted(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def __aiter__(self) -> AsyncIterator[str]:
        await self.is_over.wait()
        yield "done"

    def outcome(self) -> None:
        return None


def encoder() -> ResponseEncoder:
    def ignored(*_: Any) -> None:
        return None

    fake = SimpleNamespace(response={"id": NAME, "model": "m"}, open=ignored, text=ignored, close=ignored, fail=ignored)
    return cast("ResponseEncoder", fake)


async def started(background: Background, memory: RequestMemory) -> asyncio.Task[None]:
    """Start a response whose HTTP request of 10 MiB has ended, and return its task."""
    with memory.lease() as lease:
        await lease.grow(10 * MIB)
        LEASE.set(lease)
        background.start(REQUEST, encoder())
    return next(task for task in asyncio.all_tasks() if task.get_name() == NAME)


async def test_memory_is_leased_until_the_response_is_done() -> None:
    yard, memory = FakeYard(), RequestMemory(100 * MIB)
    task = await started(Background(cast("Yard", yard)), memory)
    assert memory.used == 10 * MIB
    yard.is_over.set()
    await asyncio.wait((task,), timeout=WAIT_S)
    assert memory.used == 0


async def test_a_cancelled_response_releases_its_memory() -> None:
    memory = RequestMemory(100 * MIB)
    background = Background(cast("Yard", FakeYard()))
    task = await started(background, memory)
    assert background.cancel(NAME)
    await asyncio.wait((task,), timeout=WAIT_S)
    assert memory.used == 0


async def test_a_failed_response_releases_its_memory() -> None:
    memory = RequestMemory(100 * MIB)
    task = await started(Background(cast("Yard", FakeYard(EngineError("m", "it ended")))), memory)
    await asyncio.wait((task,), timeout=WAIT_S)
    assert memory.used == 0


async def test_a_refused_response_leases_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.api.openai.responses.background.MAX_IN_BACKGROUND", 0)
    memory = RequestMemory(100 * MIB)
    with pytest.raises(QueueFull):
        await started(Background(cast("Yard", FakeYard())), memory)
    assert memory.used == 0


async def test_at_the_end_of_the_server_what_still_runs_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.api.openai.responses.background.MAX_END_S", 0.01)
    memory = RequestMemory(100 * MIB)
    background = Background(cast("Yard", FakeYard()))
    task = await started(background, memory)
    await background.aclose()
    assert task.cancelled()
    assert memory.used == 0


async def test_what_was_not_enforced_or_was_repaired_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    yard = FakeYard()
    yard.dropped, yard.repairs = ("text.format.schema (uniqueItems)",), ("merged messages[0] and messages[1]",)
    yard.is_over.set()
    with caplog.at_level(logging.INFO):
        task = await started(Background(cast("Yard", yard)), RequestMemory(100 * MIB))
        await asyncio.wait((task,), timeout=WAIT_S)
    assert f"Response {NAME}: x-modelyard-ignored: text.format.schema (uniqueItems)" in caplog.text
    assert f"Response {NAME}: x-modelyard-repaired: merged messages[0] and messages[1]" in caplog.text
