"""Book-keeping of one engine's KV cache: which slot holds which tokens, and which cells they take.

Pure: it decides and counts; the operations that llama.cpp must carry out are collected in ``operations``.

llama.cpp's unified cache has one pool of cells for all sequences. A cell that two sequences share (a common prefix)
is one cell, so the number of free cells is not the capacity minus the sum of the lengths; it is counted here exactly.
Source: llama.cpp, src/llama-kv-cache.cpp, seq_cp within one stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from modelyard.engine.kv.owner_shares import amounts_of
from modelyard.engine.kv.placeholders import positions
from modelyard.protocol.values import SequenceId


@dataclass(frozen=True, slots=True)
class TrimCells:
    """Forget the tokens of ``slot`` from that many positions on."""

    slot: int
    length: int


@dataclass(frozen=True, slots=True)
class ShareCells:
    """Let the empty slot ``target`` hold the tokens of ``source`` at the first ``length`` positions."""

    source: int
    target: int
    length: int


@dataclass(slots=True)
class Slot:
    """One sequence number of the cache: owned by a running sequence, or idle and kept as a prefix to reuse.

    The first ``computed`` of its tokens are in the cache; those behind are fed by the step being prepared. Cut to fewer
    than ``shortest`` tokens it could not be continued: a restored state lacks what layers with a sliding window no
    longer look at. ``awaited_by`` is the sequence in line for whose sake the slot was restored. ``stays`` says that
    there was no room to park it. ``salt`` is that of the request that its tokens were computed for: requests of another
    do not reuse them.
    """

    index: int
    tokens: list[int] = field(default_factory=list)
    cells: list[int] = field(default_factory=list)
    computed: int = 0
    owner: SequenceId | None = None
    last_used: int = 0
    shortest: int = 0
    awaited_by: SequenceId | None = None
    stays: bool = False
    salt: str = ""


def eviction_candidate(slots: Sequence[Slot], size: Callable[[Slot], int]) -> Slot:
    """The idle slot that is given up first: an empty one, one unused for longest, one that a sequence waits for.

    Of the last kind, what was restored last goes first: its sequence is behind the others in line. Where the slots are
    of several salts, one of the salt that holds most goes before those of others: nobody's prefixes push out all of
    another's.

    Args:
        slots: idle ones; one at least.
        size: by which it is told who holds most.
    """
    held = amounts_of((slot.salt, size(slot)) for slot in slots if slot.tokens)

    def order(slot: Slot) -> tuple[bool, bool, int, int]:
        is_awaited = slot.awaited_by is not None
        return bool(slot.tokens), is_awaited, -held[slot.salt], -slot.last_used if is_awaited else slot.last_used

    return min(slots, key=order)


def as_one(_: Slot) -> int:
    """The size of a slot where there are too few slots."""
    return 1


def cells_of(slot: Slot) -> int:
    """The size of a slot where there are too few cells."""
    return len(slot.cells)


class KvCache:
    """``capacity`` cells, shared by ``slots`` slots.

    has_pictures: whether there may be pictures among the tokens, which then differ from positions.
    """

    def __init__(self, capacity: int, slots: int, *, has_pictures: bool = False) -> None:
        self.capacity = capacity
        self.slots = [Slot(index) for index in range(slots)]
        self.operations: list[TrimCells | ShareCells] = []
        self._has_pictures = has_pictures
        # Holders of each cell that was ever used; those in _freed hold nothing. A long context costs nothing unused.
        self._holders: list[int] = []
        self._freed: list[int] = []
        # How often a slot was left with what it holds: the time by which prefixes are old or new.
        self.releases = 0

    @property
    def free(self) -> int:
        """Cells that hold nothing."""
        return self.capacity - len(self._holders) + len(self._freed)

    @property
    def idle(self) -> int:
        """Cells that evicting every idle slot would free, at most: shared ones are counted with each holder."""
        return sum(len(slot.cells) for slot in self.slots if slot.owner is None)

    def own_cells(self, slot: Slot) -> int:
        """Cells that only ``slot`` holds."""
        return sum(self._holders[cell] == 1 for cell in slot.cells)

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

    def commit(self, slots: Iterable[Slot]) -> None:
        """The last step was computed: the tokens of ``slots``, which are all that it fed, are in the cache."""
        for slot in slots:
            slot.computed = len(slot.tokens)

    def trim(self, slot: Slot, length: int) -> None:
        """Keep the first ``length`` tokens of the slot."""
        if length >= len(slot.tokens):
            return
        self.operations.append(TrimCells(slot.index, self._position(slot.tokens, length)))
        for cell in slot.cells[length:]:
            self._holders[cell] -= 1
            if not self._holders[cell]:
                self._freed.append(cell)
        del slot.cells[length:], slot.tokens[length:]
        slot.computed = min(slot.computed, length)
        if not length:
            slot.shortest, slot.awaited_by = 0, None

    def share(self, source: Slot, target: Slot, length: int) -> None:
        """Let ``target``, which must be empty, hold the first ``length`` tokens of ``source``.

        They are computed, and no fewer than the source's ``shortest``.
        """
        target.tokens[:] = source.tokens[:length]
        target.cells[:] = source.cells[:length]
        target.computed, target.shortest = length, source.shortest if length else 0
        target.salt = source.salt
        for cell in target.cells:
            self._holders[cell] += 1
        self.operations.append(ShareCells(source.index, target.index, self._position(source.tokens, length)))

    def _position(self, tokens: Sequence[int], length: int) -> int:
        return positions(tokens, length) if self._has_pictures else length

    def take(self, slot: Slot, owner: SequenceId, salt: str = "") -> None:
        """Give the slot to a running sequence, whose salt that of its tokens is."""
        slot.owner, slot.awaited_by, slot.salt = owner, None, salt

    def release_reservation(self, sequence: SequenceId) -> None:
        """What was restored for ``sequence`` is a prefix like any other: it ended, or runs elsewhere."""
        for slot in self.slots:
            if slot.awaited_by == sequence:
                slot.awaited_by = None

    def release(self, slot: Slot) -> None:
        """Leave the slot, with what it holds, as the most recently used prefix."""
        self.releases += 1
        slot.owner, slot.last_used, slot.stays = None, self.releases, False
        slot.computed = len(slot.tokens)

    def hold(
        self, tokens: Sequence[int], shortest: int, awaited_by: SequenceId | None = None, salt: str = ""
    ) -> Slot | None:
        """An idle slot that holds ``tokens``, as the most recently used prefix; None where there is no room.

        Other prefixes are evicted for it, but for those that a sequence waits for. The caller restores their state.
        """
        idle = [slot for slot in self.slots if slot.owner is None and slot.awaited_by is None]
        if not idle or not tokens or len(tokens) > self.free + sum(len(slot.cells) for slot in idle):
            return None
        slot = eviction_candidate(idle, as_one)
        self.trim(slot, 0)
        if not self.make_room(len(tokens), spares_awaited=True):
            return None
        self.extend(slot, tokens)
        slot.computed, slot.shortest, slot.awaited_by, slot.salt = len(tokens), shortest, awaited_by, salt
        self.release(slot)
        return slot

    def make_room(self, cells: int, *, spares_awaited: bool = False) -> bool:
        """Evict idle slots, the most expendable first, until ``cells`` are free; whether that was reached."""
        while self.free < cells:
            evictable = [
                slot
                for slot in self.slots
                if slot.owner is None and slot.tokens and not (spares_awaited and slot.awaited_by is not None)
            ]
            if not evictable:
                return False
            self.trim(eviction_candidate(evictable, cells_of), 0)
        return True
