"""The cache's books agree with a naive cache that carries its operations out."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from modelyard.engine.kv_cache import KvCache, Trim
from modelyard.engine.messages import SequenceId

CAPACITY = 24
SLOTS = 4
SLOT = st.integers(0, SLOTS - 1)


class Books(RuleBasedStateMachine):
    """Random operations, on the books and on lists of cell objects."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = KvCache(CAPACITY, SLOTS)
        self.cells: list[list[object]] = [[] for _ in range(SLOTS)]
        self.tokens: list[list[int]] = [[] for _ in range(SLOTS)]
        self.replayed: list[list[int]] = [[] for _ in range(SLOTS)]

    def replay(self) -> None:
        """What llama.cpp would hold."""
        for operation in self.cache.operations:
            if isinstance(operation, Trim):
                del self.replayed[operation.slot][operation.length :]
            else:
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
        if source == into or self.tokens[into]:
            return
        self.cache.share(self.cache.slots[source], self.cache.slots[into], length)
        self.cells[into] = self.cells[source][:length]
        self.tokens[into] = self.tokens[source][:length]

    @rule(index=SLOT)
    def take(self, index: int) -> None:
        self.cache.take(self.cache.slots[index], SequenceId(index))

    @rule(index=SLOT)
    def release(self, index: int) -> None:
        self.cache.release(self.cache.slots[index])

    @rule(cells=st.integers(0, CAPACITY))
    def make_room(self, cells: int) -> None:
        before = {slot.index: len(slot.tokens) for slot in self.cache.slots}
        made = self.cache.make_room(cells)
        for slot in self.cache.slots:
            if len(slot.tokens) < before[slot.index]:
                assert slot.owner is None
                self.cells[slot.index].clear()
                self.tokens[slot.index].clear()
        assert made == (self.cache.free >= cells)
        if not made:
            assert all(slot.owner is not None or not slot.tokens for slot in self.cache.slots)

    @precondition(lambda self: any(slot.tokens for slot in self.cache.slots))
    @rule()
    def commit(self) -> None:
        self.cache.commit()
        assert all(slot.computed == len(slot.tokens) for slot in self.cache.slots)

    @invariant()
    def the_books_are_exact(self) -> None:
        self.replay()
        assert self.cache.free == self.free()
        assert [slot.tokens for slot in self.cache.slots] == self.tokens == self.replayed
        assert all(slot.computed <= len(slot.tokens) == len(slot.cells) for slot in self.cache.slots)
        idle = [index for index, slot in enumerate(self.cache.slots) if slot.owner is None]
        assert self.cache.idle == sum(len(self.cells[index]) for index in idle)


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_the_prefix_unused_for_longest_is_evicted_first() -> None:
    cache = KvCache(6, 3)
    for slot in cache.slots:
        cache.extend(slot, [1, 2])
    for index in (1, 0, 2):
        cache.release(cache.slots[index])
    assert cache.make_room(2)
    assert [len(slot.tokens) for slot in cache.slots] == [2, 0, 2]
    assert cache.make_room(4)
    assert [len(slot.tokens) for slot in cache.slots] == [0, 0, 2]
