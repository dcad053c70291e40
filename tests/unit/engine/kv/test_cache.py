"""The cache's books agree with a naive cache that carries its operations out."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from modelyard.engine.kv import cache
from modelyard.engine.kv.cache import MIN_EVICTED, KvCache, MergeCells, ShareCells, Slot, TrimCells, slot_to_evict
from modelyard.engine.kv.prefix_tree import common_prefix
from modelyard.protocol.values import SequenceId

CAPACITY = 24
SLOTS = 4
SLOT = st.integers(0, SLOTS - 1)


class Books(RuleBasedStateMachine):
    """Random operations, on the books and on lists of cell objects."""

    def __init__(self) -> None:
        super().__init__()
        self.small_parts = patch.object(cache, "MIN_EVICTED", 3)
        self.small_parts.start()
        self.cache = KvCache(CAPACITY, SLOTS)
        self.cells: list[list[object]] = [[] for _ in range(SLOTS)]
        self.tokens: list[list[int]] = [[] for _ in range(SLOTS)]
        self.replayed: list[list[int]] = [[] for _ in range(SLOTS)]

    def teardown(self) -> None:
        self.small_parts.stop()

    def replay(self) -> None:
        """What llama.cpp would hold."""
        for operation in self.cache.operations:
            if isinstance(operation, TrimCells):
                del self.replayed[operation.slot][operation.length :]
            elif isinstance(operation, MergeCells):
                beginning = self.replayed[operation.source][: operation.length]
                assert self.replayed[operation.target][: operation.length] == beginning
            else:
                assert isinstance(operation, ShareCells)
                assert not self.replayed[operation.target]
                self.replayed[operation.target] = self.replayed[operation.source][: operation.length]
        self.cache.operations.clear()

    def free(self) -> int:
        return CAPACITY - len({id(cell) for cells in self.cells for cell in cells})

    @rule(index=SLOT, tokens=st.lists(st.integers(0, 3), max_size=8))
    def extend(self, index: int, tokens: list[int]) -> None:
        tokens = tokens[: self.cache.free]
        self.cache.extend(self.cache.slots[index], tokens)
        self.cells[index] += [object() for _ in tokens]
        self.tokens[index] += tokens
        self.replay()
        self.replayed[index] += tokens

    @rule(index=SLOT, length=st.integers(0, CAPACITY))
    def trim(self, index: int, length: int) -> None:
        self.cache.trim(self.cache.slots[index], length)
        del self.cells[index][length:], self.tokens[index][length:]

    @rule(source=SLOT, into=SLOT, length=st.integers(0, CAPACITY))
    def share(self, source: int, into: int, length: int) -> None:
        length = min(length, len(self.tokens[source]))
        if source == into or self.tokens[into] or length < self.cache.slots[source].shortest:
            return
        self.cache.share(self.cache.slots[source], self.cache.slots[into], length)
        self.cells[into] = self.cells[source][:length]
        self.tokens[into] = self.tokens[source][:length]

    @rule(source=SLOT, into=SLOT)
    def merge(self, source: int, into: int) -> None:
        length = common_prefix(self.tokens[source], self.tokens[into])
        if source != into and length:
            self.cache.merge(self.cache.slots[source], self.cache.slots[into], length)
            self.cells[into][:length] = self.cells[source][:length]

    @rule(index=SLOT)
    def take(self, index: int) -> None:
        self.cache.assign(self.cache.slots[index], SequenceId(index))

    @rule(index=SLOT)
    def release(self, index: int) -> None:
        self.cache.make_idle(self.cache.slots[index])

    def evicted(self, before: list[int]) -> None:
        for slot in self.cache.slots:
            if len(slot.tokens) < before[slot.index]:
                assert slot.owner is None
                assert not slot.tokens or len(slot.tokens) >= max(slot.shortest, 3)
                del self.cells[slot.index][len(slot.tokens) :], self.tokens[slot.index][len(slot.tokens) :]

    @rule(tokens=st.lists(st.integers(0, 3), max_size=CAPACITY), awaited_by=st.none() | SLOT)
    def hold(self, tokens: list[int], awaited_by: int | None) -> None:
        before = [len(slot.tokens) for slot in self.cache.slots]
        awaited = [slot.index for slot in self.cache.slots if slot.owner is None and slot.awaited_by is not None]
        claimant = None if awaited_by is None else SequenceId(100 + awaited_by)
        slot = self.cache.hold(tokens, len(tokens), claimant)
        held = [] if slot is None else [slot.index]
        assert all(before[index] == len(self.cache.slots[index].tokens) for index in awaited)
        for index in held:
            # It was emptied first, if it held anything.
            before[index] = 0
            self.cells[index], self.tokens[index] = [object() for _ in tokens], list(tokens)
            self.replay()
            self.replayed[index] += tokens
            assert (self.cache.slots[index].computed, self.cache.slots[index].owner) == (len(tokens), None)
            assert self.cache.slots[index].awaited_by == claimant
        self.evicted(before)

    @rule(index=SLOT)
    def release_reservation(self, index: int) -> None:
        self.cache.release_reservation(SequenceId(100 + index))
        assert all(slot.awaited_by != SequenceId(100 + index) for slot in self.cache.slots)

    @rule(cells=st.integers(0, CAPACITY))
    def make_room(self, cells: int) -> None:
        before = [len(slot.tokens) for slot in self.cache.slots]
        made = self.cache.make_room(cells)
        self.evicted(before)
        assert made == (self.cache.free >= cells)
        if not made:
            assert all(slot.owner is not None or not slot.tokens for slot in self.cache.slots)

    @precondition(lambda self: any(slot.tokens for slot in self.cache.slots))
    @rule()
    def commit(self) -> None:
        self.cache.commit(self.cache.slots)
        assert all(slot.computed == len(slot.tokens) for slot in self.cache.slots)

    @invariant()
    def the_books_are_exact(self) -> None:
        self.replay()
        assert self.cache.free == self.free()
        assert [slot.tokens for slot in self.cache.slots] == self.tokens == self.replayed
        assert all(slot.computed <= len(slot.tokens) == len(slot.cells) for slot in self.cache.slots)
        idle = [index for index, slot in enumerate(self.cache.slots) if slot.owner is None]
        assert self.cache.idle == sum(len(self.cells[index]) for index in idle)
        assert all(slot.tokens for slot in self.cache.slots if slot.awaited_by is not None or slot.shortest)


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_the_prefix_unused_for_longest_is_evicted_first() -> None:
    cache = KvCache(6, 3)
    for slot in cache.slots:
        cache.extend(slot, [1, 2])
    for index in (1, 0, 2):
        cache.make_idle(cache.slots[index])
    assert cache.make_room(2)
    assert [len(slot.tokens) for slot in cache.slots] == [2, 0, 2]
    assert cache.make_room(4)
    assert [len(slot.tokens) for slot in cache.slots] == [0, 0, 2]


def test_what_is_restored_evicts_old_prefixes_but_none_that_a_sequence_waits_for() -> None:
    cache = KvCache(10, 4)
    cache.hold([1, 1, 1], 0)
    first = cache.hold([2, 2, 2], 0, SequenceId(7))
    assert first is not None
    second = cache.hold([3, 3, 3, 3, 3], 0, SequenceId(8))
    assert second is not None
    assert [slot.tokens[:1] for slot in cache.slots] == [[], [2], [3], []]
    assert cache.hold([4] * 3, 0) is None
    cache.release_reservation(SequenceId(7))
    assert cache.hold([4] * 5, 0) is not None
    assert sorted(slot.tokens[:1] for slot in cache.slots) == [[], [], [3], [4]]


def test_nothing_is_evicted_for_what_would_not_fit_anyway() -> None:
    cache = KvCache(8, 3)
    kept, running = cache.slots[:2]
    cache.extend(running, [1] * 4)
    cache.assign(running, SequenceId(1))
    cache.extend(kept, [2] * 4)
    assert cache.hold([3] * 5, 0) is None
    assert kept.tokens == [2] * 4


def test_cells_shared_with_a_running_sequence_make_no_room() -> None:
    cache = KvCache(8, 3)
    running, sharer, _ = cache.slots
    cache.extend(running, [1] * 4)
    cache.commit([running])
    cache.assign(running, SequenceId(1))
    cache.share(running, sharer, 4)
    assert cache.hold([3] * 6, 0) is None
    assert (running.tokens, sharer.tokens) == ([1] * 4, [])


def test_a_running_sequence_evicts_what_nobody_waits_for_first() -> None:
    cache = KvCache(4, 3)
    cache.hold([1, 1], 0, SequenceId(7))
    cache.hold([2, 2], 0)
    assert cache.make_room(2)
    assert [slot.tokens for slot in cache.slots] == [[1, 1], [], []]
    assert cache.make_room(4)
    assert not any(slot.tokens for slot in cache.slots)


def test_a_shared_prefix_is_as_long_at_least_as_its_source_has_to_be() -> None:
    cache = KvCache(20, 3)
    source = cache.hold([1] * 8, 7)
    assert source is not None
    target = cache.slots[2]
    cache.share(source, target, 7)
    assert target.shortest == 7
    cache.trim(target, 0)
    assert target.shortest == 0


def test_where_slots_are_short_what_costs_least_to_compute_again_goes_until_it_is_old() -> None:
    cache = KvCache(10_000, 3)
    history, *short = cache.slots

    def used(slot: Slot, tokens: list[int]) -> None:
        cache.extend(slot, tokens)
        cache.assign(slot, SequenceId(slot.index))
        cache.make_idle(slot)

    used(history, list(range(500)))
    for number, slot in enumerate(short):
        used(slot, [1000 + number] * 100)
    evicted = []
    for number in range(2, 16):
        victim = slot_to_evict(cache.slots)
        evicted.append(victim)
        cache.evict(victim)
        used(victim, [1000 + number] * 100)
    # What is evicted for them counts for those that come after it: 100, and once both were evicted 200, and so on.
    assert evicted.index(history) == 8


def test_what_another_slot_holds_too_is_worth_nothing() -> None:
    cache = KvCache(1000, 3)
    first, second, third = cache.slots
    cache.extend(first, list(range(300)))
    cache.commit([first])
    cache.share(first, second, 250)
    cache.extend(second, [7] * 60)
    cache.extend(third, list(range(400, 455)))
    for slot in cache.slots:
        cache.assign(slot, SequenceId(slot.index))
    for slot in cache.slots:
        cache.make_idle(slot)
    assert [slot.worth for slot in cache.slots] == [50, 60, 55]


def test_where_cells_are_short_the_end_of_the_oldest_prefix_goes() -> None:
    cache = KvCache(2000, 2)
    oldest, newest = cache.slots
    for slot in cache.slots:
        cache.extend(slot, list(range(1000 * slot.index, 1000 * slot.index + 1000)))
        cache.assign(slot, SequenceId(slot.index))
        cache.make_idle(slot)
    assert cache.make_room(300)
    assert (len(oldest.tokens), len(newest.tokens)) == (700, 1000)
    # In parts of some hundred tokens, and no little rest is left.
    assert cache.make_room(301)
    assert len(oldest.tokens) == 700 - MIN_EVICTED
    assert cache.make_room(600)
    assert (len(oldest.tokens), len(newest.tokens)) == (0, 1000)


def test_a_restored_prefix_shares_the_beginning_that_another_slot_holds() -> None:
    cache = KvCache(100, 2)
    kept, restored = cache.slots
    cache.extend(kept, [1, 2, 3, 4])
    cache.extend(restored, [1, 2, 3, 9])
    cache.merge(kept, restored, 3)
    assert cache.free == 95
    assert cache.operations == [MergeCells(0, 1, 3)]
    cache.trim(kept, 0)
    assert cache.free == 96
