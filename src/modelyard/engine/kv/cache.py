"""Accounting of one engine's KV cache: which slot holds which tokens, and which cells they take.

Pure: it decides and counts; the operations that llama.cpp must carry out are collected in ``operations``.

llama.cpp's unified cache has one pool of cells for all sequences. A cell that two sequences share (a common prefix)
is one cell, so the number of free cells is not the capacity minus the sum of the lengths; it is counted here exactly.
Source: llama.cpp, src/llama-kv-cache.cpp, seq_cp within one stream.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from modelyard.engine.kv.checkpoints import Checkpoint, CheckpointStore
from modelyard.engine.kv.placeholders import end_outside_span, positions
from modelyard.protocol.values import SequenceId
from modelyard.system.owner_shares import amounts_of

# Prefixes are evicted in parts of at least so many tokens, and none shorter is kept.
MIN_EVICTED: Final = 256


@dataclass(frozen=True, slots=True)
class TrimCells:
    """Remove the tokens of ``slot`` from position ``length`` on."""

    slot: int
    length: int


@dataclass(frozen=True, slots=True)
class ShareCells:
    """Share the first ``length`` positions of ``source`` with the empty slot ``target``."""

    source: int
    target: int
    length: int


@dataclass(frozen=True, slots=True)
class OwnWindow:
    """Have layers with a sliding window hold the window of ``slot`` in cells that it shares with no other slot."""

    slot: int


@dataclass(frozen=True, slots=True)
class MergeCells:
    """Give up the first ``length`` positions of ``target``, and share those of ``source`` in their place."""

    source: int
    target: int
    length: int


@dataclass(frozen=True, slots=True)
class SaveCheckpoint:
    """Copy the state of ``slot``, which holds ``tokens``, as a checkpoint."""

    slot: int
    tokens: tuple[int, ...]
    salt: str


@dataclass(frozen=True, slots=True)
class RestoreCheckpoint:
    """Replace the state of ``slot`` by that of ``checkpoint``; what it holds of other layers stays."""

    slot: int
    checkpoint: Checkpoint


Operation: TypeAlias = TrimCells | ShareCells | OwnWindow | MergeCells | SaveCheckpoint | RestoreCheckpoint


@dataclass(slots=True)
class Slot:
    """One sequence number of the cache: owned by a running sequence, or idle and kept as a prefix to reuse.

    The first ``computed`` of its tokens are in the cache; those behind are computed by the step being prepared. Cut to
    fewer than ``shortest`` tokens the slot could not be continued: layers with a sliding window may have lost what they
    no longer read (``record_first``). ``awaited_by`` is the waiting sequence that the slot was restored for. ``stays``
    is set where there was no room to park the slot. ``worth`` is the number of tokens that no other slot held when it
    was last used, plus the worth of what had been evicted by then (GreedyDual, see ``checkpoints``). ``salt`` is the
    salt of the request that the tokens were computed for: requests with another salt do not reuse them.
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
    worth: int = 0
    salt: str = ""


def slot_to_evict(slots: Sequence[Slot]) -> Slot:
    """Return the idle slot to evict where slots are scarce, of at least one: the one that is worth least.

    An empty one goes first, and one that a sequence awaits last; of awaited slots the one restored last goes first: its
    sequence is behind the others in the queue. Where the slots have several salts, a slot of the salt that holds most
    goes before the others, so that no owner's prefixes push out all prefixes of another.
    """
    held = amounts_of((slot.salt, 1) for slot in slots if slot.tokens)
    return _first_to_go(slots, held, lambda slot: (slot.worth, slot.last_used))


def prefix_to_evict(slots: Sequence[Slot]) -> Slot:
    """Return the idle slot to evict from where cells are scarce, of at least one: the least recently used.

    Each token costs the same to compute and takes one cell, so that the last use alone counts. Empty slots, those that
    a sequence awaits and salts are ordered as by ``slot_to_evict``.
    """
    held = amounts_of((slot.salt, len(slot.cells)) for slot in slots if slot.tokens)
    return _first_to_go(slots, held, lambda slot: (slot.last_used, 0))


def _first_to_go(slots: Sequence[Slot], held: Mapping[Hashable, int], order: Callable[[Slot], tuple[int, int]]) -> Slot:
    def rank(slot: Slot) -> tuple[bool, bool, int, tuple[int, int]]:
        is_awaited = slot.awaited_by is not None
        return bool(slot.tokens), is_awaited, -held[slot.salt], (-slot.last_used, 0) if is_awaited else order(slot)

    return min(slots, key=rank)


class KvCache:
    """``capacity`` cells, which may change, shared by ``slots`` slots.

    has_images: whether the tokens may contain placeholders of images, whose number differs from their positions.
    checkpoints: of a model whose memory cannot be cut back to any earlier token; None for other models.
    can_trim: whether it can be cut back to any token that is not before the ``shortest`` of a slot.
    """

    def __init__(
        self,
        capacity: int,
        slots: int,
        *,
        has_images: bool = False,
        checkpoints: CheckpointStore | None = None,
        can_trim: bool | None = None,
    ) -> None:
        self.capacity = capacity
        self.can_trim = checkpoints is None if can_trim is None else can_trim
        # Whether layers with a sliding window have cells for a window of each slot alone, which no two slots may share.
        self.has_short_windows = False
        self.slots = [Slot(index) for index in range(slots)]
        self.checkpoints = checkpoints
        self.operations: list[Operation] = []
        self._has_images = has_images
        # Number of holders of each cell that was ever used; cells in _freed have none.
        self._holders: list[int] = []
        self._freed: list[int] = []
        # Worth of the prefix that was evicted last for a slot.
        self.evicted_worth = 0
        # Number of times that a slot was released, which orders prefixes by their last use.
        self.releases = 0

    @property
    def free(self) -> int:
        """Number of free cells."""
        return self.capacity - len(self._holders) + len(self._freed)

    @property
    def makes_checkpoints(self) -> bool:
        """Whether checkpoints are made: the model needs them, and there is memory for them."""
        return self.checkpoints is not None and self.checkpoints.limit_bytes > 0

    @property
    def used(self) -> int:
        """Number of cells that are not free."""
        return len(self._holders) - len(self._freed)

    @property
    def idle(self) -> int:
        """Upper bound of the cells that evicting all idle slots would free: shared cells count with each holder."""
        return sum(len(slot.cells) for slot in self.slots if slot.owner is None)

    def held(self) -> int:
        """Return the number of cells that running sequences hold."""
        return len({cell for slot in self.slots if slot.owner is not None for cell in slot.cells})

    def own_cells(self, slot: Slot) -> int:
        """Number of cells that only ``slot`` holds."""
        return sum(self._holders[cell] == 1 for cell in slot.cells)

    def extend(self, slot: Slot, tokens: Sequence[int]) -> None:
        """Append ``tokens`` to the slot. The caller has made room for them."""
        for token in tokens:
            if self._freed:
                cell = self._freed.pop()
                self._holders[cell] = 1
            else:
                cell = len(self._holders)
                self._holders.append(1)
            slot.cells.append(cell)
            slot.tokens.append(token)

    def record_first(self, slot: Slot, position: int, window: int) -> None:
        """Record that layers with a sliding window hold nothing of ``slot`` before ``position``; nothing at all: -1.

        The token behind the last one that is kept sees the ``window`` - 1 tokens before it. All tokens are computed.
        """
        if position < 0:
            slot.shortest = len(slot.tokens) + 1
            return
        skipped = len(slot.tokens) - self._position(slot.tokens, len(slot.tokens))
        slot.shortest = position + window - 1 + skipped if position else 0

    def commit(self, slots: Iterable[Slot]) -> None:
        """Mark the tokens of ``slots``, which are all slots of the last step, as computed."""
        for slot in slots:
            slot.computed = len(slot.tokens)

    def trim(self, slot: Slot, length: int, checkpoint: Checkpoint | None = None) -> None:
        """Keep the first ``length`` tokens of the slot, and free the cells of the others.

        Args:
            slot: the slot.
            length: tokens to keep.
            checkpoint: the state behind them, where the memory cannot be cut there.
        """
        if length >= len(slot.tokens):
            return
        if checkpoint is not None:
            self._restore(slot, checkpoint)
        self.operations.append(TrimCells(slot.index, self._position(slot.tokens, length)))
        for cell in slot.cells[length:]:
            self._give_up(cell)
        del slot.cells[length:], slot.tokens[length:]
        slot.computed = min(slot.computed, length)
        if not length:
            slot.shortest, slot.awaited_by = 0, None

    def share(self, source: Slot, target: Slot, length: int, checkpoint: Checkpoint | None = None) -> None:
        """Share the first ``length`` tokens of ``source`` with ``target``, which must be empty.

        They are computed already, and no fewer than the ``shortest`` of the source. ``checkpoint`` is the state behind
        them, where the memory cannot be cut there.
        """
        target.tokens[:] = source.tokens[:length]
        target.cells[:] = source.cells[:length]
        target.computed, target.shortest = length, source.shortest if length else 0
        target.salt = source.salt
        for cell in target.cells:
            self._holders[cell] += 1
        self.operations.append(ShareCells(source.index, target.index, self._position(source.tokens, length)))
        if checkpoint is not None:
            self._restore(target, checkpoint)
        elif self.has_short_windows:
            self.operations.append(OwnWindow(target.index))

    def merge(self, source: Slot, target: Slot, length: int) -> None:
        """Have ``target`` share the first ``length`` tokens of ``source``, which are its own, in place of its copy."""
        for at, cell in enumerate(source.cells[:length]):
            self._holders[cell] += 1
            self._give_up(target.cells[at])
            target.cells[at] = cell
        self.operations.append(MergeCells(source.index, target.index, self._position(source.tokens, length)))

    def save_checkpoint(self, slot: Slot) -> None:
        """Make a checkpoint of all that the slot holds, which is computed, unless there is one that serves as well."""
        assert self.checkpoints is not None
        if not self.checkpoints.covers(slot.tokens, slot.salt):
            self.operations.append(SaveCheckpoint(slot.index, tuple(slot.tokens), slot.salt))

    def _restore(self, slot: Slot, checkpoint: Checkpoint) -> None:
        assert self.checkpoints is not None
        self.checkpoints.use(checkpoint)
        self.operations.append(RestoreCheckpoint(slot.index, checkpoint))

    def _give_up(self, cell: int) -> None:
        self._holders[cell] -= 1
        if not self._holders[cell]:
            self._freed.append(cell)

    def _position(self, tokens: Sequence[int], length: int) -> int:
        return positions(tokens, length) if self._has_images else length

    def assign(self, slot: Slot, owner: SequenceId, salt: str = "") -> None:
        """Give the slot to a running sequence; ``salt`` is the salt of its request."""
        slot.owner, slot.awaited_by, slot.salt = owner, None, salt

    def release_reservation(self, sequence: SequenceId) -> None:
        """Make slots that were restored for ``sequence`` ordinary prefixes, since it ended or runs in another slot."""
        for slot in self.slots:
            if slot.awaited_by == sequence:
                slot.awaited_by = None

    def make_idle(self, slot: Slot) -> None:
        """Make the slot idle; its tokens become the most recently used prefix.

        Its cells stay in llama.cpp until ``make_room`` evicts them, another sequence reuses them, or they are
        offloaded.
        """
        self.releases += 1
        slot.owner, slot.last_used, slot.stays = None, self.releases, False
        slot.computed, slot.worth = len(slot.tokens), self.evicted_worth + self.own_cells(slot)

    def evict(self, slot: Slot) -> None:
        """Empty an idle slot that is needed, or one prefix too many."""
        if slot.tokens:
            self.evicted_worth = max(self.evicted_worth, slot.worth)
        self.trim(slot, 0)

    def hold(
        self, tokens: Sequence[int], shortest: int, awaited_by: SequenceId | None = None, salt: str = ""
    ) -> Slot | None:
        """Assign ``tokens`` to an idle slot, as the most recently used prefix; None where there is no room.

        Other prefixes are evicted for it, except awaited ones. The caller restores the KV state.
        """
        idle = [slot for slot in self.slots if slot.owner is None and slot.awaited_by is None]
        if not idle or not tokens or len(tokens) > self.free + sum(len(slot.cells) for slot in idle):
            return None
        slot = slot_to_evict(idle)
        self.evict(slot)
        if not self.make_room(len(tokens), spares_awaited=True):
            return None
        self.extend(slot, tokens)
        slot.computed, slot.shortest, slot.awaited_by, slot.salt = len(tokens), shortest, awaited_by, salt
        self.make_idle(slot)
        return slot

    def make_room(self, cells: int, *, spares_awaited: bool = False) -> bool:
        """Evict ends of idle slots, by ``prefix_to_evict``, until ``cells`` are free; whether that was reached."""
        while self.free < cells:
            evictable = [
                slot
                for slot in self.slots
                if slot.owner is None and slot.tokens and not (spares_awaited and slot.awaited_by is not None)
            ]
            if not evictable:
                return False
            self._evict_end(prefix_to_evict(evictable), cells - self.free)
        return True

    def _evict_end(self, slot: Slot, missing: int) -> None:
        """Evict as much of the end of an idle slot as frees ``missing`` cells, or all of it.

        Its beginning is what other prompts are most likely to begin with, and costs as much to compute for each token.
        """
        length, freed = len(slot.cells), 0
        while length and (freed < missing or len(slot.cells) - length < MIN_EVICTED):
            length -= 1
            freed += self._holders[slot.cells[length]] == 1
        checkpoint, shortest = None, slot.shortest
        if self.checkpoints is not None and not (self.can_trim and length >= shortest):
            along = self.checkpoints.along(slot.tokens[:length], slot.salt)
            checkpoint = along[-1] if along else None
            length, shortest = (len(checkpoint.tokens), 0) if checkpoint else (0, 0)
        length = end_outside_span(slot.tokens, length)
        if length < max(shortest, MIN_EVICTED):
            length, checkpoint = 0, None
        self.trim(slot, length, checkpoint)
