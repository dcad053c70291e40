"""What becomes of windows when a context gets another size."""

from __future__ import annotations

from typing import cast

import pytest

from modelyard.engine.kv.cache import KvCache
from modelyard.engine.kv.checkpoints import CheckpointStore
from modelyard.engine.kv.slot_windows import adapt_to_windows, checkpoint_limit
from modelyard.engine.llama import Context
from modelyard.engine.settings import CHECKPOINTS

STATE = 100


class Resized:
    """llama.cpp's side: it has cells for the windows of all slots but ``full``."""

    can_trim = True
    allocated_bytes = 10_000

    def __init__(self, spared_bytes: int, full: int = -1) -> None:
        self.checkpoint_bytes = STATE if spared_bytes else 0
        self.spared_bytes = spared_bytes
        self.has_short_windows = spared_bytes > 0
        self.owned: list[int] = []
        self._full = full

    def own_window(self, slot: int) -> None:
        if slot == self._full:
            raise RuntimeError("no cells")
        self.owned.append(slot)


def adapted(cache: KvCache, context: Resized) -> list[int]:
    return [slot.index for slot in adapt_to_windows(cache, cast(Context, context))]


@pytest.mark.parametrize(("spared", "limit"), [(0, 0), (50, 0), (250, 250), (10_000, CHECKPOINTS * STATE)])
def test_checkpoints_take_no_more_than_windows_spare(spared: int, limit: int) -> None:
    assert checkpoint_limit(cast(Context, Resized(spared))) == limit


def test_slots_that_share_cells_get_windows_of_their_own_once() -> None:
    cache = KvCache(1000, 4, checkpoints=CheckpointStore(0), can_trim=True)
    assert cache.checkpoints is not None
    for slot in (cache.slots[0], cache.slots[3]):
        cache.extend(slot, range(100))
        cache.commit([slot])
    cache.share(cache.slots[0], cache.slots[1], 90)
    grown = Resized(10_000, full=1)
    assert adapted(cache, grown) == [1]
    assert (grown.owned, cache.has_short_windows, cache.checkpoints.limit_bytes) == ([0], True, CHECKPOINTS * STATE)
    grown = Resized(20_000)
    assert (adapted(cache, grown), grown.owned) == ([], [])
    assert adapted(cache, Resized(0)) == []
    assert (cache.has_short_windows, cache.checkpoints.limit_bytes) == (False, 0)
