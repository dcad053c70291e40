"""Which idle prefixes leave the KV cache for host memory, and which come back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from modelyard.engine.kv.cache import KvCache, Slot
from modelyard.engine.kv.offload import MAX_PARKED_AT_ONCE, KvOffload
from modelyard.engine.kv.sequence import Sequence as TokenSequence
from modelyard.engine.llama import Context
from modelyard.protocol.kv_snapshot import KvState
from modelyard.protocol.values import SequenceId

TOKEN_BYTES = 8
ME = SequenceId(7)


class Cells:
    """llama.cpp's side, scripted: what it holds, as numbers of tokens by slot."""

    def __init__(self, token_bytes: int = TOKEN_BYTES) -> None:
        self.lengths: dict[int, int] = {}
        self.firsts: dict[int, int] = {}
        self.looks = 0
        self._token_bytes = token_bytes

    def trim(self, slot: int, length: int) -> None:
        self.lengths[slot] = length

    def share(self, source: int, target: int, length: int) -> None:
        self.lengths[target] = length

    def first_position(self, slot: int) -> int:
        return self.firsts.get(slot, 0)

    def state_bytes(self, slot: int) -> int:
        self.looks += 1
        return self.lengths[slot] * self._token_bytes

    def save(self, slot: int) -> KvState:
        # A large state is as small as any other here.
        return np.zeros(self.lengths[slot] * TOKEN_BYTES, np.uint8)

    def restore(self, slot: int, state: KvState) -> bool:
        self.lengths[slot] = len(state) // TOKEN_BYTES
        return True


class Yard:
    def __init__(self, slots: int = 4, token_bytes: int = TOKEN_BYTES, capacity: int = 1000, **limits: Any) -> None:
        self.cells = Cells(token_bytes)
        self.cache = KvCache(capacity, slots)
        chosen = {"window": 0, "parked_bytes": 10_000, "max_prefixes": 8} | limits
        self.moves = KvOffload("m", self.cache, cast(Context, self.cells), **chosen)

    def computed(self, slot: int, tokens: Sequence[int]) -> Slot:
        """A slot with these tokens, owned by a sequence."""
        self.cache.extend(self.cache.slots[slot], tokens)
        self.cache.assign(self.cache.slots[slot], SequenceId(slot))
        self.cells.lengths[slot] = len(tokens)
        self.cache.commit(self.cache.slots)
        return self.cache.slots[slot]

    def idle(self, slot: int, tokens: Sequence[int]) -> Slot:
        self.cache.make_idle(self.computed(slot, tokens))
        return self.cache.slots[slot]

    def step(self) -> None:
        self.moves.prepare_step([])

    def arrival(self, prompt: list[int]) -> None:
        """The step of a newcomer."""
        self.moves.prepare_step([TokenSequence(ME, 0, prompt)])

    @property
    def parked(self) -> list[tuple[int, ...]]:
        return [prompt.tokens for prompt in self.moves.parked]


def test_an_idle_prefix_leaves_the_cache_and_one_in_use_does_not() -> None:
    yard = Yard()
    idle, busy = yard.idle(0, range(50)), yard.computed(1, range(100, 150))
    yard.step()
    assert yard.parked == [tuple(range(50))]
    assert (idle.tokens, yard.cells.lengths[0]) == ([], 0)
    assert len(busy.tokens) == yard.cells.lengths[1] == 50
    assert yard.cache.free == 1000 - 50


def test_it_comes_back_for_a_prompt_that_begins_with_it() -> None:
    yard = Yard()
    yard.idle(0, range(50))
    yard.step()
    yard.arrival([*range(50), 900])
    (slot,) = [slot for slot in yard.cache.slots if slot.tokens]
    assert (slot.tokens, slot.awaited_by, yard.cells.lengths[slot.index]) == (list(range(50)), ME, 50)
    assert yard.parked == []


def test_what_a_newcomer_can_use_stays_in_the_cache() -> None:
    yard = Yard()
    yard.idle(0, range(50))
    yard.idle(1, range(100, 150))
    yard.arrival([*range(40), 900])
    assert yard.parked == [tuple(range(100, 150))]


def test_what_a_newcomer_cannot_use_of_it_is_parked_and_it_goes_on_in_place() -> None:
    yard = Yard()
    idle = yard.idle(0, range(100))
    yard.arrival([*range(40), 900])
    assert yard.parked == [tuple(range(100))]
    assert (idle.tokens, yard.cells.lengths[0]) == (list(range(40)), 40)


def test_a_prompt_that_comes_again_goes_on_in_place_without_its_answer() -> None:
    yard = Yard()
    idle = yard.idle(0, range(100))
    yard.arrival(list(range(60)))
    assert yard.parked == [tuple(range(100))]
    assert idle.tokens == list(range(59))


def test_it_does_not_come_back_for_a_prompt_that_shares_little_or_finds_as_much_in_a_slot() -> None:
    yard = Yard()
    yard.idle(0, range(50))
    yard.step()
    yard.arrival([*range(20), 900])
    yard.computed(1, [*range(50), 800])
    yard.arrival([*range(50), 900])
    assert yard.parked == [tuple(range(50))]


def test_it_stays_parked_where_there_is_no_room_for_it_in_the_cache() -> None:
    yard = Yard(capacity=100)
    yard.idle(0, range(50))
    yard.step()
    yard.computed(1, range(200, 280))
    yard.arrival([*range(50), 900])
    assert yard.parked == [tuple(range(50))]


def test_what_is_short_or_awaited_or_could_not_be_cut_again_stays_in_the_cache() -> None:
    yard = Yard(window=40)
    yard.idle(0, range(10))
    yard.idle(1, range(100, 139)).awaited_by = ME
    yard.idle(2, range(200, 241))
    yard.step()
    assert yard.parked == []
    yard.idle(3, range(300, 339))
    yard.step()
    assert yard.parked == [tuple(range(300, 339))]


def test_what_a_window_has_lost_limits_how_far_a_slot_can_be_cut() -> None:
    yard = Yard(window=40)
    slots = [yard.idle(at, range(at * 1000, at * 1000 + 100)) for at in range(4)]
    # The token behind the first 60 reads the 39 before it.
    yard.cells.firsts = {0: 0, 1: 21, 2: 61, 3: -1}
    yard.moves.find_shortest()
    assert [slot.shortest for slot in slots] == [0, 60, 100, 101]
    assert [prompt.tokens[0] for prompt in yard.moves.save_within(10_000)] == [2000, 1000, 0]


def test_what_others_share_stays_in_the_cache() -> None:
    yard = Yard()
    idle = yard.idle(0, range(200))
    yard.cache.share(idle, yard.cache.slots[1], 190)
    yard.moves.carry_out()
    yard.step()
    assert yard.parked == []


def test_what_has_no_room_stays_in_the_cache_and_is_looked_at_once() -> None:
    yard = Yard(parked_bytes=60 * TOKEN_BYTES)
    yard.idle(0, range(50))
    large = yard.idle(1, range(100, 150))
    for _ in range(3):
        yard.step()
    assert yard.parked == [tuple(range(50))]
    assert len(large.tokens) == 50
    assert yard.cells.looks == 2
    # There is room again.
    yard.arrival([*range(50), 900])
    yard.step()
    assert yard.parked == [tuple(range(100, 150))]


def test_a_step_waits_for_no_more_than_it_may() -> None:
    yard = Yard(token_bytes=MAX_PARKED_AT_ONCE // 60, parked_bytes=2**40)
    yard.idle(0, range(50))
    yard.idle(1, range(100, 150))
    too_large = yard.idle(2, range(200, 270))
    yard.step()
    assert yard.parked == [tuple(range(50))]
    yard.step()
    assert yard.parked == [tuple(range(50)), tuple(range(100, 150))]
    yard.step()
    assert len(too_large.tokens) == 70


def test_of_more_prefixes_than_are_kept_the_oldest_is_forgotten() -> None:
    yard = Yard(max_prefixes=2)
    for start in (0, 100, 200):
        yard.idle(0, range(start, start + 50))
        yard.step()
    assert yard.parked == [tuple(range(100, 150)), tuple(range(200, 250))]


def test_under_a_smaller_limit_the_oldest_parked_prefixes_go() -> None:
    yard = Yard()
    for slot, first in enumerate((0, 100, 200)):
        yard.idle(slot, range(first, first + 50))
        yard.step()
    yard.moves.limit_parked(2 * 50 * TOKEN_BYTES)
    assert yard.parked == [tuple(range(100, 150)), tuple(range(200, 250))]


def test_where_no_prefixes_are_kept_they_are_given_up_without_a_copy() -> None:
    yard = Yard(max_prefixes=0)
    idle = yard.idle(0, range(50))
    yard.step()
    assert (yard.parked, idle.tokens, yard.cells.lengths[0], yard.cells.looks) == ([], [], 0, 0)


def test_nothing_is_parked_without_memory_for_it() -> None:
    yard = Yard(parked_bytes=0)
    yard.idle(0, range(50))
    yard.step()
    assert yard.parked == []
    assert yard.cells.looks == 0


def test_parked_prefixes_outlive_the_engine_behind_those_in_the_cache() -> None:
    yard = Yard()
    yard.idle(0, range(50))
    yard.step()
    yard.idle(1, range(100, 150))
    assert [prompt.tokens[0] for prompt in yard.moves.save_within(100 * TOKEN_BYTES)] == [100, 0]
    assert [prompt.tokens[0] for prompt in yard.moves.save_within(99 * TOKEN_BYTES)] == [100]
    assert [(unsaved.tokens[0], unsaved.read().nbytes) for unsaved in yard.moves.idle_prefixes()] == [
        (100, 50 * TOKEN_BYTES),
        (0, 50 * TOKEN_BYTES),
    ]
