"""FairLimiter for pictures and sound: so many at the same time, and some for everybody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Hashable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from modelyard.api.media.fair_limiter import FairLimiter

MAX_WAIT_S = 20.0


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


@asynccontextmanager
async def holding(limiter: FairLimiter, owner: Hashable, entered: list[Hashable]) -> AsyncIterator[asyncio.Task[None]]:
    """A task that has a place, or waits for one, until the context is left."""

    async def hold() -> None:
        async with limiter.place(owner):
            entered.append(owner)
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait((task,), timeout=MAX_WAIT_S)


async def test_without_owners_all_places_are_for_whoever_comes() -> None:
    limiter, entered = FairLimiter(3), list[Hashable]()
    async with AsyncExitStack() as held:
        tasks = [await held.enter_async_context(holding(limiter, None, entered)) for _ in range(5)]
        await settle()
        assert len(entered) == 3
        tasks[0].cancel()
        await settle()
        assert len(entered) == 4


async def test_one_owner_takes_half_and_others_find_a_place() -> None:
    limiter, entered = FairLimiter(8), list[Hashable]()
    async with AsyncExitStack() as held:
        for owner in ["a"] * 20 + ["b"] * 20 + ["c"]:
            await held.enter_async_context(holding(limiter, owner, entered))
        await settle()
        assert (entered.count("a"), entered.count("b"), entered.count("c")) == (4, 2, 1)


async def test_whoever_has_less_goes_first_when_a_place_is_free() -> None:
    limiter, entered = FairLimiter(2), list[Hashable]()
    async with AsyncExitStack() as held:
        first = await held.enter_async_context(holding(limiter, "a", entered))
        await held.enter_async_context(holding(limiter, "b", entered))
        await settle()
        for owner in ("b", "b", "c"):
            await held.enter_async_context(holding(limiter, owner, entered))
        await settle()
        assert entered == ["a", "b"]
        first.cancel()
        await settle()
        assert entered == ["a", "b", "c"]


async def test_who_leaves_while_it_waits_takes_no_place() -> None:
    limiter, entered = FairLimiter(1), list[Hashable]()
    async with AsyncExitStack() as held:
        first = await held.enter_async_context(holding(limiter, "a", entered))
        second = await held.enter_async_context(holding(limiter, "b", entered))
        await settle()
        # In the same turn of the loop: the place is granted to one that is being cancelled.
        first.cancel()
        await asyncio.sleep(0)
        second.cancel()
        await settle()
        await held.enter_async_context(holding(limiter, "c", entered))
        await settle()
        assert entered[-1] == "c"


async def test_work_has_its_place_until_it_is_done_also_where_nobody_waits_for_it() -> None:
    limiter, go_on, begun, cancelled = FairLimiter(1), threading.Event(), threading.Event(), threading.Event()

    def work() -> int:
        begun.set()
        assert go_on.wait(MAX_WAIT_S)
        raise ValueError("nobody reads this")

    try:
        task = asyncio.create_task(limiter.run("a", work, cancelled.set))
        async with asyncio.timeout(MAX_WAIT_S):
            await asyncio.to_thread(begun.wait, MAX_WAIT_S)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert cancelled.is_set()
            next_one = asyncio.create_task(limiter.run("b", lambda: 7, cancelled.set))
            await settle()
            assert not next_one.done()
            go_on.set()
            assert await next_one == 7
    finally:
        go_on.set()
