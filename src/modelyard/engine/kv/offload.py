"""KV state on the move: the books' operations carried out in llama.cpp, and prefixes to host memory and back.

llama.cpp's attention goes over all cells up to the last that is taken, also over those of sequences that have no part
in the step, and its threads part the cells among them, whoever's they are: on a CPU idle prefixes of 200 to 1,400
tokens make each token of a small model a tenth to a fifth slower (``docs/performance.md``). So a prefix that others
are computed beside is parked: saved to host memory and trimmed, until a prompt begins with it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import Final

from modelyard.engine.kv.cache import KvCache, Slot, TrimCells
from modelyard.engine.kv.disk import Unsaved
from modelyard.engine.kv.owner_shares import amounts_of, first_to_go
from modelyard.engine.kv.placeholders import outside
from modelyard.engine.kv.prefix import LOSABLE_TOKENS, common_prefix
from modelyard.engine.kv.sequence import Sequence as TokenSequence
from modelyard.engine.llama import Context
from modelyard.protocol.kv_snapshot import KeptPrompt
from modelyard.protocol.values import SequenceId

logger = logging.getLogger(__name__)

# Cells from which on it is worth it, and bytes that one step waits for at most: measured in docs/performance.md.
WORTH_PARKING: Final = 32
MAX_PARKED_AT_ONCE: Final = 64 << 20


class KvOffload:
    """Moves KV state of one engine.

    Args:
        name: of the model, for the log.
        cache: the books.
        context: whose cells they keep.
        window: of the narrowest attention layers, in tokens; 0 where all see everything.
        parked_bytes: host memory for parked prefixes; 0: none is parked.
        most_prefixes: idle prefixes that are kept at the same time, where some of them are parked; 0: they are given up
            instead.
    """

    def __init__(
        self, name: str, cache: KvCache, context: Context, *, window: int, parked_bytes: int, most_prefixes: int
    ) -> None:
        self._name = name
        self._cache = cache
        self._context = context
        self._window = window
        self._parked_bytes = parked_bytes
        self._most_prefixes = most_prefixes
        # The releases of the cache when all slots were looked at.
        self._looked_at = 0
        # The most recently used last.
        self.parked: list[KeptPrompt] = []

    def carry_out(self) -> None:
        """Do in llama.cpp what was done in the books."""
        for operation in self._cache.operations:
            if isinstance(operation, TrimCells):
                self._context.trim(operation.slot, operation.length)
            else:
                self._context.share(operation.source, operation.target, operation.length)
        self._cache.operations.clear()

    def save(self, slot: Slot) -> KeptPrompt:
        """A copy of what is in ``slot``."""
        return KeptPrompt(tuple(slot.tokens), self._context.save(slot.index), slot.salt)

    def idle_prefixes(self) -> Iterator[Unsaved]:
        """All that no sequence runs on, the most recently used first; a copy is made when it is asked for."""
        for slot in self._idle_slots():
            yield Unsaved(tuple(slot.tokens), partial(self._context.save, slot.index), slot.salt)
        for prompt in reversed(self.parked):
            yield Unsaved(prompt.tokens, prompt.read, prompt.salt)

    def save_within(self, room: int) -> Iterator[KeptPrompt]:
        """Copies of idle prefixes, as far as they go into ``room`` bytes together."""
        for slot in self._idle_slots():
            size = self._context.state_bytes(slot.index)
            if size <= room:
                room -= size
                yield self.save(slot)
        for prompt in reversed(self.parked):
            if prompt.kv.nbytes <= room:
                room -= prompt.kv.nbytes
                yield prompt

    def hold(self, prompt: KeptPrompt, awaited_by: SequenceId | None = None) -> bool:
        """Have ``prompt`` in an idle slot, where the scheduler finds it; False where there is no room for it."""
        length = len(prompt.tokens)
        # llama.cpp does not save what a sliding window has left behind: the next token must follow at the end.
        shortest = length - 1 if 0 < self._window < length else 0
        slot = self._cache.hold(prompt.tokens, shortest, awaited_by, prompt.salt)
        # Also where it found no room: it may have evicted.
        self.carry_out()
        if slot is None:
            return False
        if not self._context.restore(slot.index, prompt.kv):
            logger.warning("%s: a kept prompt cannot be restored: %s", self._name, self._context.failure())
            self._cache.trim(slot, 0)
            self.carry_out()
        return True

    def make_way(self, admissible: Iterable[TokenSequence]) -> None:
        """Before a step: park what nobody in it needs, then have what newcomers need in a slot again.

        In that order: where a prefix lies by itself, its sums are those of when it was computed.

        Args:
            newcomers: sequences that the step may admit.
        """
        arriving = list(admissible)
        if self.is_due(arriving):
            self._park(arriving)
            for sequence in arriving:
                if not sequence.was_sought:
                    sequence.was_sought = True
                    self._bring_back(sequence)

    def is_due(self, admissible: Iterable[TokenSequence]) -> bool:
        """Whether ``make_way`` has something to look at: a slot that was left, or a newcomer, since the last look."""
        return bool(self._parked_bytes) and (
            self._looked_at != self._cache.releases or not all(sequence.was_sought for sequence in admissible)
        )

    def _park(self, arriving: Sequence[TokenSequence]) -> None:
        left, is_any, is_all = MAX_PARKED_AT_ONCE, False, True
        wanted = self._wanted(arriving)
        for slot in self._cache.slots:
            if slot.owner is not None or slot.stays or not self._is_parkable(slot):
                continue
            used = wanted.get(slot.index, 0)
            if used and len(slot.tokens) - used <= LOSABLE_TOKENS:
                continue
            if not self._most_prefixes:
                is_any = True
                self._cache.trim(slot, used)
                continue
            size = self._context.state_bytes(slot.index)
            if size > MAX_PARKED_AT_ONCE or not self._has_room(size, slot.salt):
                slot.stays = True
            elif size <= left:
                left, is_any = left - size, True
                self.parked.append(self.save(slot))
                self._cache.trim(slot, used)
            else:
                is_all = False
        self._looked_at = self._cache.releases if is_all else -1
        if is_any:
            self.carry_out()
            self._give_up(wanted)

    def _give_up(self, wanted: Collection[int]) -> None:
        """Keep as many prefixes as may be kept: of the salt that has most, what is parked goes before what is not.

        Args:
            wanted: slots that newcomers will go on from.
        """
        while self.parked and len(idle := self._idle_slots()) + len(self.parked) > self._most_prefixes:
            loose = [slot for slot in reversed(idle) if slot.awaited_by is None and slot.index not in wanted]
            at = first_to_go([*((prompt.salt, 1) for prompt in self.parked), *((slot.salt, 1) for slot in loose)])
            if at < len(self.parked):
                del self.parked[at]
            else:
                self._cache.trim(loose[at - len(self.parked)], 0)
        self.carry_out()

    def _has_room(self, size: int, salt: str) -> bool:
        """Whether ``size`` bytes more can be parked for ``salt``: others give up what is beyond an equal share."""
        held = [(prompt.salt, prompt.kv.nbytes) for prompt in self.parked]
        amounts = amounts_of(held)
        while amounts.total() + size > self._parked_bytes:
            # Nothing of its own: what was parked last is not worth more than what was parked before.
            if not held or max(amounts.values()) <= amounts[salt] + size:
                return False
            at = first_to_go(held)
            owner, given_up = held.pop(at)
            amounts[owner] -= given_up
            del self.parked[at]
        return True

    def _wanted(self, arriving: Sequence[TokenSequence]) -> dict[int, int]:
        """The slots that newcomers will go on from, with the tokens that are of use to them.

        What such a slot holds beyond is parked: a newcomer then goes on in place, in cells that are in order.
        """
        wanted: dict[int, int] = {}
        for sequence in arriving:
            used, slot = max(
                ((_useful(sequence, slot), slot) for slot in self._cache.slots), key=lambda found: found[0]
            )
            if used >= WORTH_PARKING:
                wanted[slot.index] = max(used, wanted.get(slot.index, 0))
        return wanted

    def _bring_back(self, sequence: TokenSequence) -> None:
        best, most = None, max(WORTH_PARKING - 1, *(_useful(sequence, slot) for slot in self._cache.slots))
        for prompt in self.parked:
            useful = _useful(sequence, prompt)
            if useful > most:
                best, most = prompt, useful
        if best is None:
            return
        if self.hold(best, awaited_by=sequence.id):
            self.parked = [prompt for prompt in self.parked if prompt is not best]
            for slot in self._cache.slots:
                slot.stays = False
            self._looked_at = -1

    def _idle_slots(self) -> list[Slot]:
        """Slots with a prefix that no sequence runs on, the most recently used first."""
        idle = (slot for slot in self._cache.slots if slot.owner is None and slot.tokens)
        return sorted(idle, key=lambda slot: -slot.last_used)

    def _is_parkable(self, slot: Slot) -> bool:
        return (
            slot.awaited_by is None
            and len(slot.tokens) >= WORTH_PARKING
            # What a sliding window has left behind is lost in a copy, and with it the freedom to cut the prefix.
            and not slot.shortest
            and not 0 < self._window < len(slot.tokens)
            # Of a prefix that others share, little would be gained.
            and self._cache.own_cells(slot) >= max(WORTH_PARKING, len(slot.tokens) // 4)
        )


def _useful(sequence: TokenSequence, held: Slot | KeptPrompt) -> int:
    """How many tokens of what is held ``sequence`` can go on from: its last one is computed in any case."""
    if held.salt != sequence.salt:
        return 0
    return outside(sequence.tokens, min(common_prefix(sequence.tokens, held.tokens), len(sequence.tokens) - 1))
