"""Bodies of requests share a bounded memory: who finds none left waits for others, and not for ever."""

from __future__ import annotations

import asyncio

import pytest

from modelyard.api.serving.request_memory import (
    FREE_BYTES,
    MAX_OBJECTS_HELD,
    MIN_BYTES,
    OBJECT_BYTES,
    RequestMemory,
    request_memory_bytes,
)
from modelyard.errors import ServerOverloaded

MIB = 1 << 20
LIMIT = 100 * MIB


async def test_small_requests_are_not_counted() -> None:
    memory = RequestMemory(LIMIT)
    with memory.lease() as lease:
        await lease.grow(FREE_BYTES)
        assert memory.used == 0


async def test_what_a_request_takes_is_free_when_it_is_over() -> None:
    memory = RequestMemory(LIMIT)
    with memory.lease() as lease:
        await lease.grow(40 * MIB)
        await lease.grow(60 * MIB)
        await lease.grow(10 * MIB)
        assert memory.used == 60 * MIB
    assert memory.used == 0


async def test_who_finds_no_room_waits_and_keeps_its_turn() -> None:
    memory = RequestMemory(LIMIT)
    with memory.lease() as first, memory.lease() as second, memory.lease() as third:
        await first.grow(70 * MIB)
        large = asyncio.create_task(second.grow(50 * MIB))
        small = asyncio.create_task(third.grow(10 * MIB))
        await asyncio.sleep(0)
        assert (large.done(), small.done()) == (False, False)
        memory.shrink(first, 0)
        await asyncio.gather(large, small)
        assert memory.used == 60 * MIB


async def test_one_that_leaves_the_line_lets_the_next_go_on() -> None:
    memory = RequestMemory(LIMIT)
    with memory.lease() as first, memory.lease() as second, memory.lease() as third:
        await first.grow(70 * MIB)
        large = asyncio.create_task(second.grow(50 * MIB))
        small = asyncio.create_task(third.grow(10 * MIB))
        await asyncio.sleep(0)
        large.cancel()
        await small
        assert memory.used == 80 * MIB


async def test_a_request_larger_than_all_of_the_memory_goes_on_alone() -> None:
    memory = RequestMemory(LIMIT)
    with memory.lease() as lease:
        await lease.grow(2 * LIMIT)
        assert memory.used == 2 * LIMIT


async def test_who_waited_for_long_is_refused() -> None:
    memory = RequestMemory(LIMIT, max_wait_s=0.01)
    with memory.lease() as first, memory.lease() as second:
        await first.grow(LIMIT)
        with pytest.raises(ServerOverloaded, match="100 MiB"):
            await second.grow(2 * MIB)
    assert memory.used == 0


def test_the_memory_grows_with_the_machine() -> None:
    assert request_memory_bytes(2 << 30) == MIN_BYTES
    assert request_memory_bytes(64 << 30) == 4 << 30


def test_the_memory_of_large_machines_holds_no_more_objects_than_the_garbage_collector_visits_quickly() -> None:
    assert RequestMemory(MIN_BYTES).object_bytes == MIN_BYTES // MAX_OBJECTS_HELD
    large = RequestMemory(16 << 30)
    assert large.limit // large.object_bytes == pytest.approx(MAX_OBJECTS_HELD, rel=0.01)
    assert RequestMemory(LIMIT).object_bytes == OBJECT_BYTES


async def test_a_lease_grows_and_shrinks_by_what_a_request_has_beside_its_body() -> None:
    memory = RequestMemory(LIMIT)
    with memory.lease() as lease:
        await lease.grow(10 * MIB)
        await lease.add(20 * MIB)
        lease.give_back(15 * MIB)
        assert memory.used == 15 * MIB


async def test_where_all_that_hold_memory_wait_for_more_the_last_is_refused_at_once() -> None:
    memory = RequestMemory(LIMIT)
    with memory.lease() as first, memory.lease() as second:
        await first.grow(50 * MIB)
        await second.grow(50 * MIB)

        async def grow_second() -> None:
            with second:
                await second.grow(80 * MIB)

        growing = asyncio.create_task(first.grow(80 * MIB))
        refused = asyncio.create_task(grow_second())
        with pytest.raises(ServerOverloaded, match="100 MiB"):
            await asyncio.wait_for(refused, 5)
        await asyncio.wait_for(growing, 5)
        assert memory.used == 80 * MIB


async def test_of_those_that_hold_memory_and_wait_one_that_fits_goes_before_its_turn() -> None:
    memory = RequestMemory(LIMIT)
    with memory.lease() as first, memory.lease() as second, memory.lease() as third:
        await second.grow(40 * MIB)
        waiting = asyncio.create_task(first.grow(80 * MIB))
        await asyncio.sleep(0)
        await asyncio.wait_for(second.grow(90 * MIB), 5)
        other = asyncio.create_task(third.grow(10 * MIB))
        await asyncio.sleep(0)
        assert (waiting.done(), other.done()) == (False, False)
        memory.shrink(second, 0)
        await asyncio.gather(waiting, other)
