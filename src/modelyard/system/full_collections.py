"""Full passes of the garbage collector at intervals, in place of whenever a request has brought many objects.

A full pass visits all objects that are not frozen, and no other thread runs meanwhile. CPython starts one whenever the
number of objects has grown by a quarter, which large bodies do many times a second, although they hold no cycles.

Source: CPython 3.11, Modules/gcmodule.c, gc_collect_generations.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

INTERVAL_S: Final = 30.0

MIN_PASSES: Final = 10
"""Passes over young objects since the last full one that make the next one worthwhile: an idle server has fewer."""

_NEVER: Final = 2**31 - 1


@asynccontextmanager
async def full_collections_at_intervals(interval_s: float = INTERVAL_S) -> AsyncIterator[None]:
    """While entered, run full passes every ``interval_s`` on the event loop, and no others."""
    young, middle, old = gc.get_threshold()
    gc.set_threshold(young, middle, _NEVER)
    passes = asyncio.create_task(_collect_at_intervals(interval_s), name="garbage collector")
    try:
        yield
    finally:
        gc.set_threshold(young, middle, old)
        passes.cancel()
        with suppress(asyncio.CancelledError):
            await passes


async def _collect_at_intervals(interval_s: float) -> None:
    while True:
        await asyncio.sleep(interval_s)
        if gc.get_count()[2] >= MIN_PASSES:
            gc.collect()
