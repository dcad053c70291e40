"""Full passes of the garbage collector run at intervals, and free what is in cycles."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable

from modelyard.system.full_collections import MIN_PASSES, full_collections_at_intervals

WAIT_S = 20.0


class Cycle:
    """An object that only the garbage collector frees."""

    def __init__(self) -> None:
        self.itself = self


def old_cycle(on_freed: Callable[[], None]) -> weakref.ref[Cycle]:
    """Return a reference to garbage that only a full pass frees."""
    cycle = Cycle()
    gc.collect(1)
    return weakref.ref(cycle, lambda _: on_freed())


async def test_many_objects_bring_no_full_pass_and_their_end_leaves_the_thresholds_as_they_were() -> None:
    before = gc.get_threshold()
    async with full_collections_at_intervals(interval_s=3600):
        gc.collect()
        full = gc.get_stats()[2]["collections"]
        objects: list[list[int]] = [[] for _ in range(200_000)]
        assert len(objects) == 200_000
        assert gc.get_stats()[2]["collections"] == full
        assert gc.get_stats()[1]["collections"] > 0
    assert gc.get_threshold() == before


async def test_garbage_of_any_age_is_freed_after_the_interval() -> None:
    async with full_collections_at_intervals(interval_s=0.01):
        is_freed = asyncio.Event()
        garbage = old_cycle(is_freed.set)
        for _ in range(MIN_PASSES + 1):
            gc.collect(1)
        async with asyncio.timeout(WAIT_S):
            await is_freed.wait()
        assert garbage() is None
