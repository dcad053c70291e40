"""Carries the KV cache's operations out in llama.cpp, and moves idle prefixes to host memory and back.

llama.cpp's attention goes over all cells up to the last one in use, also over those of sequences that have no part in
the step, and its threads divide these cells among them: on a CPU, idle prefixes of 200 to 1,400 tokens make each token
of a small model a tenth to a fifth slower (``docs/performance.md``). So a prefix is parked while others are computed:
saved to host memory and trimmed, until a prompt begins with it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from modelyard.engine.kv.cache import (
    KvCache,
    MergeCells,
    OwnWindow,
    RestoreCheckpoint,
    SaveCheckpoint,
    ShareCells,
    Slot,
    TrimCells,
)
from modelyard.engine.kv.checkpoints import Checkpoint
from modelyard.engine.kv.disk import KvDiskCache, StoredPrompt, Unsaved
from modelyard.engine.kv.placeholders import end_outside_span
from modelyard.engine.kv.prefix import LOSABLE_TOKENS
from modelyard.engine.kv.prefix_tree import PrefixTree, common_prefix
from modelyard.engine.kv.sequence import Sequence as TokenSequence
from modelyard.engine.kv.slot_windows import find_shortest
from modelyard.engine.llama import Context
from modelyard.protocol.kv_snapshot import KeptPrompt
from modelyard.protocol.values import SequenceId
from modelyard.system.owner_shares import amounts_of, first_to_go

logger = logging.getLogger(__name__)

# Cells from which on parking pays, and limit of the bytes that are saved before one step: see docs/performance.md.
MIN_PARKED_TOKENS: Final = 32
MAX_PARKED_AT_ONCE: Final = 64 << 20

# A prompt is read from disk where it saves at least so many tokens.
MIN_STORED_TOKENS: Final = 128


@dataclass(frozen=True, slots=True, eq=False)
class _Parked:
    """A parked prefix, and the ``worth`` of the slot that it was in."""

    prompt: KeptPrompt
    worth: int


class KvOffload:
    """Moves KV state of one engine.

    Args:
        name: id of the model, for the log.
        cache: accounting of the KV cache.
        context: the context whose cells the cache accounts for.
        window: window of the narrowest attention layers, in tokens; 0 where all layers see everything, and where the
            model cannot be trimmed at all.
        parked_bytes: host memory for parked prefixes; 0: none is parked.
        max_prefixes: limit of idle prefixes, parked or in slots, that are kept once any is parked; 0: idle prefixes are
            trimmed instead of parked.
    """

    def __init__(
        self, name: str, cache: KvCache, context: Context, *, window: int, parked_bytes: int, max_prefixes: int
    ) -> None:
        self._name = name
        self._cache = cache
        self._context = context
        self._window = window
        self._parked_bytes = parked_bytes
        self._max_prefixes = max_prefixes
        # Prompts on disk that are in neither slots nor host memory, as far as is known.
        self._stored = PrefixTree[StoredPrompt]()
        self._disk: KvDiskCache | None = None
        # Value of ``cache.releases`` when all slots were last considered.
        self._considered_releases = 0
        # In order of last use, the most recent last.
        self._parked: list[_Parked] = []

    @property
    def parked(self) -> list[KeptPrompt]:
        """The parked prefixes in order of last use, the most recent last."""
        return [each.prompt for each in self._parked]

    def use_disk(self, disk: KvDiskCache) -> None:
        """Look for the beginnings of prompts on ``disk``, too, where it has those of this engine."""
        self._disk = disk
        for stored in disk.index():
            self._stored.add(stored.tokens, stored, stored.salt)

    def carry_out(self) -> None:
        """Carry the collected operations of the cache out in llama.cpp.

        Raises:
            RuntimeError: a checkpoint cannot be saved or restored, after which the slot cannot be used.
        """
        for operation in self._cache.operations:
            match operation:
                case TrimCells(slot, length):
                    self._context.trim(slot, length)
                case ShareCells(source, target, length):
                    self._context.share(source, target, length)
                case OwnWindow(slot):
                    self._context.own_window(slot)
                case MergeCells(source, target, length):
                    self._context.merge(source, target, length)
                case SaveCheckpoint(slot, tokens, salt):
                    self._save_checkpoint(Checkpoint(tokens, salt, self._context.save_state(slot)))
                case RestoreCheckpoint(slot, checkpoint):
                    self._context.restore_state(slot, checkpoint.state)
        self._cache.operations.clear()

    def _save_checkpoint(self, checkpoint: Checkpoint) -> None:
        if (checkpoints := self._cache.checkpoints) is not None:
            checkpoints.add(checkpoint, ((slot.tokens, slot.salt) for slot in self._cache.slots))

    def find_shortest(self) -> None:
        """Find out how far each slot can be cut back, between steps: layers with a sliding window lose cells."""
        find_shortest(self._cache, self._context, self._window)

    def limit_parked(self, parked_bytes: int) -> None:
        """Change the limit of the bytes of parked prefixes; what exceeds it goes. Without parking it stays so."""
        if not self._parked_bytes:
            return
        self._parked_bytes = parked_bytes
        held = [(prompt.salt, prompt.kv.nbytes) for prompt in self.parked]
        while sum(size for _, size in held) > parked_bytes:
            at = first_to_go(held)
            del held[at], self._parked[at]
        for slot in self._cache.slots:
            slot.stays = False
        self._considered_releases = -1

    def save(self, slot: Slot) -> KeptPrompt:
        """Return a copy of the tokens and the KV state of ``slot``."""
        return KeptPrompt(tuple(slot.tokens), self._context.save(slot.index), slot.salt)

    def idle_prefixes(self) -> Iterator[Unsaved]:
        """Yield all idle prefixes, then all checkpoints, each the most recently used first.

        The state of a prefix in a slot is only copied when it is read.
        """
        for slot in self._complete_slots():
            yield Unsaved(tuple(slot.tokens), partial(self._context.save, slot.index), slot.salt)
        for prompt in self._in_host_memory():
            yield Unsaved(prompt.tokens, prompt.read, prompt.salt, prompt.is_checkpoint)

    def save_within(self, room: int) -> Iterator[KeptPrompt]:
        """Yield copies of idle prefixes, and checkpoints, as many as fit into ``room`` bytes together."""
        for slot in self._complete_slots():
            size = self._context.state_bytes(slot.index)
            if size <= room:
                room -= size
                yield self.save(slot)
        for prompt in self._in_host_memory():
            if prompt.kv.nbytes <= room:
                room -= prompt.kv.nbytes
                yield prompt

    def _in_host_memory(self) -> Iterator[KeptPrompt]:
        """Yield parked prefixes, then checkpoints, each the most recently used first."""
        yield from reversed(self.parked)
        for checkpoint in self._cache.checkpoints or ():
            yield KeptPrompt(checkpoint.tokens, checkpoint.state, checkpoint.salt, is_checkpoint=True)

    def hold(self, prompt: KeptPrompt, awaited_by: SequenceId | None = None) -> bool:
        """Restore ``prompt`` into an idle slot, where the scheduler finds it; False where there is no room for it.

        A checkpoint becomes one of this engine's.
        """
        if prompt.is_checkpoint:
            self._save_checkpoint(Checkpoint(prompt.tokens, prompt.salt, prompt.kv))
            return True
        length = len(prompt.tokens)
        # llama.cpp does not save cells that a sliding window has left behind: the state can only be continued, not cut.
        shortest = length - 1 if 0 < self._window < length else 0
        slot = self._cache.hold(prompt.tokens, shortest, awaited_by, prompt.salt)
        # Also where there was no room: prefixes may have been evicted.
        self.carry_out()
        if slot is None:
            return False
        if not self._context.restore(slot.index, prompt.kv):
            logger.warning("%s: a kept prompt cannot be restored: %s", self._name, self._context.failure())
            self._cache.trim(slot, 0)
        elif self._cache.can_trim and not self._cache.has_short_windows and not slot.shortest:
            self._merge_beginning(slot)
        self.carry_out()
        return True

    def _merge_beginning(self, slot: Slot) -> None:
        """Share the beginning of a restored slot with another one that holds it, in place of a second copy in cells."""
        length, source = 0, None
        for other in self._cache.slots:
            if other is not slot and other.salt == slot.salt and not other.shortest:
                common = end_outside_span(slot.tokens, min(common_prefix(slot.tokens, other.tokens), other.computed))
                if common > length:
                    length, source = common, other
        if source is not None and length >= MIN_PARKED_TOKENS:
            self._cache.merge(source, slot, length)

    def prepare_step(self, admissible: Iterable[TokenSequence]) -> None:
        """Before a step: park the prefixes that it does not need, then restore those that its new sequences need.

        In this order, a restored prefix lies in cells by itself: attention over it sums as when it was computed.

        Args:
            admissible: sequences that the step may admit.
        """
        arriving = list(admissible)
        if self.is_due(arriving):
            if self._parked_bytes:
                self._park(arriving)
            for sequence in arriving:
                if not sequence.was_sought:
                    sequence.was_sought = True
                    self._restore_parked(sequence)
                    if self._disk is not None:
                        self._restore_stored(sequence, self._disk)

    def is_due(self, admissible: Iterable[TokenSequence]) -> bool:
        """Whether ``prepare_step`` has work: since its last run a slot was released or a sequence became admissible."""
        if self._parked_bytes and self._considered_releases != self._cache.releases:
            return True
        if not self._parked_bytes and self._disk is None:
            return False
        return not all(sequence.was_sought for sequence in admissible)

    def _park(self, arriving: Sequence[TokenSequence]) -> None:
        left, is_any, is_all = MAX_PARKED_AT_ONCE, False, True
        reused_slots = self._reused_slots(arriving)
        for slot in self._cache.slots:
            if slot.owner is not None or slot.stays or not self._is_parkable(slot):
                continue
            used = reused_slots.get(slot.index, 0)
            if used and len(slot.tokens) - used <= LOSABLE_TOKENS:
                continue
            if not self._max_prefixes:
                is_any = True
                self._cache.trim(slot, used)
                continue
            size = self._context.state_bytes(slot.index)
            if size > MAX_PARKED_AT_ONCE or not self._has_room(size, slot.salt):
                slot.stays = True
            elif size <= left:
                left, is_any = left - size, True
                self._parked.append(_Parked(self.save(slot), slot.worth))
                self._cache.trim(slot, used)
            else:
                is_all = False
        self._considered_releases = self._cache.releases if is_all else -1
        if is_any:
            self.carry_out()
            self._evict_surplus(reused_slots)

    def _evict_surplus(self, reused_slots: Collection[int]) -> None:
        """Evict prefixes beyond the limit: from the salt that holds most, the one that is worth least.

        Args:
            reused_slots: slots that admissible sequences will continue.
        """
        while self._parked and len(idle := self._idle_slots()) + len(self._parked) > self._max_prefixes:
            loose = (slot for slot in reversed(idle) if slot.awaited_by is None and slot.index not in reused_slots)
            held: list[tuple[str, _Parked | Slot]] = [(each.prompt.salt, each) for each in self._parked]
            held = sorted([*held, *((slot.salt, slot) for slot in loose)], key=lambda each: each[1].worth)
            victim = held[first_to_go([(salt, 1) for salt, _ in held])][1]
            if isinstance(victim, Slot):
                self._cache.evict(victim)
            else:
                self._cache.evicted_worth = max(self._cache.evicted_worth, victim.worth)
                self._parked.remove(victim)
        self.carry_out()

    def _has_room(self, size: int, salt: str) -> bool:
        """Whether ``size`` more bytes fit for ``salt``, after evicting what other salts hold beyond an equal share."""
        held = [(each.prompt.salt, each.prompt.kv.nbytes) for each in self._parked]
        amounts = amounts_of(held)
        while amounts.total() + size > self._parked_bytes:
            # Nothing of the same salt is evicted: a newer prefix is not worth more than an older one.
            if not held or max(amounts.values()) <= amounts[salt] + size:
                return False
            at = first_to_go(held)
            owner, given_up = held.pop(at)
            amounts[owner] -= given_up
            del self._parked[at]
        return True

    def _reused_slots(self, arriving: Sequence[TokenSequence]) -> dict[int, int]:
        """Return the slots that admissible sequences will continue, with the number of tokens that they reuse.

        What such a slot holds beyond is parked: the sequence then continues in place, in consecutive cells.
        """
        reused_slots: dict[int, int] = {}
        for sequence in arriving:
            used, slot = max(
                ((_reusable_tokens(sequence, slot), slot) for slot in self._cache.slots), key=lambda found: found[0]
            )
            if used >= MIN_PARKED_TOKENS:
                reused_slots[slot.index] = max(used, reused_slots.get(slot.index, 0))
        return reused_slots

    def _restore_parked(self, sequence: TokenSequence) -> None:
        best, best_tokens = (
            None,
            max(MIN_PARKED_TOKENS - 1, *(_reusable_tokens(sequence, slot) for slot in self._cache.slots)),
        )
        for prompt in self.parked:
            reusable = _reusable_tokens(sequence, prompt)
            if reusable > best_tokens:
                best, best_tokens = prompt, reusable
        if best is None:
            return
        if self.hold(best, awaited_by=sequence.id):
            self._parked = [each for each in self._parked if each.prompt is not best]
            for slot in self._cache.slots:
                slot.stays = False
            self._considered_releases = -1

    def _restore_stored(self, sequence: TokenSequence, disk: KvDiskCache) -> None:
        """Restore the prompt on disk that begins as ``sequence`` does, where that saves many tokens.

        All sequences wait for it: while any runs, no more is read at once than is parked at once.
        """
        match = self._stored.match(sequence.tokens[:-1], sequence.salt)
        stored = match.nearest
        if stored is None:
            return
        if stored.state_bytes > MAX_PARKED_AT_ONCE and any(slot.owner is not None for slot in self._cache.slots):
            return
        reusable, length = match.common, len(stored.tokens)
        is_cut_freely = self._cache.can_trim and not 0 < self._window < length
        if not is_cut_freely and reusable < length - self._cache.can_trim:
            along = (
                []
                if self._cache.checkpoints is None
                else self._cache.checkpoints.along(sequence.tokens[:reusable], sequence.salt)
            )
            reusable = len(along[-1].tokens) if along else 0
        if reusable < MIN_STORED_TOKENS + max(_reusable_tokens(sequence, slot) for slot in self._cache.slots):
            return
        self._stored.remove(stored.tokens, stored, stored.salt)
        prompt = disk.read(stored)
        if prompt is not None:
            self.hold(prompt, awaited_by=sequence.id)

    def _idle_slots(self) -> list[Slot]:
        """Return the slots with a prefix that no sequence runs on, the most recently used first."""
        idle = (slot for slot in self._cache.slots if slot.owner is None and slot.tokens)
        return sorted(idle, key=lambda slot: -slot.last_used)

    def _complete_slots(self) -> list[Slot]:
        """Return the idle slots that can be continued, as ``_idle_slots`` does."""
        self.find_shortest()
        return [slot for slot in self._idle_slots() if slot.shortest <= len(slot.tokens)]

    def _is_parkable(self, slot: Slot) -> bool:
        return (
            slot.awaited_by is None
            and len(slot.tokens) >= MIN_PARKED_TOKENS
            # A copy lacks the cells that a sliding window has left behind, and could not be cut.
            and not slot.shortest
            and not 0 < self._window < len(slot.tokens)
            # Parking a prefix whose cells others share frees few of them.
            and self._cache.own_cells(slot) >= max(MIN_PARKED_TOKENS, len(slot.tokens) // 4)
        )


def _reusable_tokens(sequence: TokenSequence, held: Slot | KeptPrompt) -> int:
    """Return how many tokens of a slot or a copy ``sequence`` can reuse: its last token is computed in any case."""
    if held.salt != sequence.salt:
        return 0
    return end_outside_span(sequence.tokens, min(common_prefix(sequence.tokens, held.tokens), len(sequence.tokens) - 1))
