"""Book-keeping of one engine's KV cache: which slot holds which tokens, and which cells they take.

Pure: it decides and counts; the operations that llama.cpp must carry out are collected in ``operations``.

llama.cpp's unified cache has one pool of cells for all sequences. A cell that two sequences share (a common prefix)
is one cell, so the number of free cells is not the capacity minus the sum of the lengths; it is counted here exactly.
Source: llama.cpp, src/llama-kv-cache.cpp, seq_cp within one stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from modelyard.engine.messages import SequenceId


@dataclass(frozen=True, slots=True)
class Trim:
    """Forget the tokens of ``slot`` from position ``length`` on."""

    slot: int
    length: int


@dataclass(frozen=True, slots=True)
class Share:
    """Let the empty slot ``target`` hold the first ``length`` tokens of ``source``."""

    source: int
    target: int
    length: int


@dataclass(slots=True)
class Slot:
    """One sequence number of the cache: owned by a running sequence, or idle and kept as a prefix to reuse.

    The first ``computed`` of its tokens are in the cache; those behind are fed by the step being prepared.
    """

    index: int
    tokens: list[int] = field(default_factory=list)
    cells: list[int] = field(default_factory=list)
    computed: int = 0
    owner: SequenceId | None = None
    last_used: int = 0


class KvCache:
    """``capacity`` cells, shared by ``slots`` slots."""

    def __init__(self, capacity: int, slots: int) -> None:
        self.capacity = capacity
        self.slots = [Slot(index) for index in range(slots)]
        self.operations: list[Trim | Share] = []
        # Holders of each cell that was ever used; those in _freed hold nothing. A long context costs nothing unused.
        self._holders: list[int] = []
        self._freed: list[int] = []
        self._clock = 0

    @property
    def free(self) -> int:
        """Cells that hold nothing."""
        return self.capacity - len(self._holders) + len(self._freed)

    @property
    def idle(self) -> int:
        """Cells that evicting every idle slot would free, at most: shared ones are counted with each holder."""
        return sum(len(slot.cells) for slot in self.slots if slot.owner is None)

    def extend(self, slot: Slot, tokens: Sequence[int]) -> None:
        """Append ``tokens`` to the slot. The caller has made room."""
        for token in tokens:
            if self._freed:
                cell = self._freed.pop()
                self._holders[cell] = 1
            else:
                cell = len(self._holders)
                self._holders.append(1)
            slot.cells.append(cell)
            slot.tokens.append(token)

    def commit(self) -> None:
        """The last step was computed: its tokens are in the cache."""
        for slot in self.slots:
            slot.computed = len(slot.tokens)

    def trim(self, slot: Slot, length: int) -> None:
        """Keep the first ``length`` tokens of the slot."""
        if length >= len(slot.tokens):
            return
        for cell in slot.cells[length:]:
            self._holders[cell] -= 1
            if not self._holders[cell]:
                self._freed.append(cell)
        del slot.cells[length:], slot.tokens[length:]
        slot.computed = min(slot.computed, length)
        self.operations.append(Trim(slot.index, length))

    def share(self, source: Slot, target: Slot, length: int) -> None:
        """Let ``target``, which must be empty, hold the first ``length`` tokens of ``source``, which are computed."""
        target.tokens[:] = source.tokens[:length]
        target.cells[:] = source.cells[:length]
        target.computed = length
        for cell in target.cells:
            self._holders[cell] += 1
        self.operations.append(Share(source.index, target.index, length))

    def take(self, slot: Slot, owner: SequenceId) -> None:
        """Give the slot to a running sequence."""
        slot.owner = owner

    def release(self, slot: Slot) -> None:
        """Leave the slot, with what it holds, as the most recently used prefix."""
        self._clock += 1
        slot.owner, slot.last_used = None, self._clock

    def make_room(self, cells: int) -> bool:
        """Evict idle slots, least recently used first, until ``cells`` are free; whether that was reached."""
        while self.free < cells:
            evictable = [s for s in self.slots if s.owner is None and s.tokens]
            if not evictable:
                return False
            self.trim(min(evictable, key=lambda s: s.last_used), 0)
        return True
