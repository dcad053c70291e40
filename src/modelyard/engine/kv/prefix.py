"""Prefix reuse: chooses the slot of a new sequence so that the least of it must be computed again. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelyard.engine.kv.cache import Slot, slot_to_evict
from modelyard.engine.kv.checkpoints import Checkpoint
from modelyard.engine.kv.placeholders import end_outside_span
from modelyard.engine.kv.prefix_tree import common_prefix

# A prefix that loses at most this many tokens is continued in place: the next turn of a conversation differs from its
# last by the end of the template. A prefix that would lose more is needed by another conversation too, and is shared.
LOSABLE_TOKENS = 16


@dataclass(frozen=True, slots=True)
class SlotPlacement:
    """A new sequence goes into ``slot`` and reuses ``reused`` tokens of ``donor``, which may be the same slot.

    Attributes:
        checkpoint: the state behind the reused tokens; None: the memory can be cut there, or ends there.
        common: length of the longest prefix that any slot has computed, which may be longer than what can be reused.
    """

    slot: Slot
    donor: Slot | None
    reused: int
    checkpoint: Checkpoint | None = None
    common: int = 0


def place(
    tokens: Sequence[int],
    slots: Sequence[Slot],
    *,
    can_trim: bool,
    salt: str = "",
    checkpoints: Sequence[Checkpoint] = (),
) -> SlotPlacement | None:
    """Choose the slot and the donor for a sequence that begins with ``tokens``; None where all slots are owned.

    Only tokens computed for requests of the same ``salt`` are reused: the time to the first token reveals whether a
    prefix was cached, which must not leak between owners. The last token is never reused, since its logits are needed.
    An image is reused whole or not at all. Where the model cannot trim, or not as far (``Slot.shortest``), what is
    reused ends at one of ``checkpoints``, which are those of prefixes of ``tokens``, the shortest first. Where it can
    not trim at all, the whole content of an idle slot can be continued in place, too.
    """
    idle = [slot for slot in slots if slot.owner is None]
    if not idle:
        return None
    limit = len(tokens) - 1
    donor, reused, checkpoint, longest = None, 0, None, 0
    best = 0, False, False
    for slot in slots:
        if slot.salt != salt:
            continue
        common = end_outside_span(tokens, min(common_prefix(tokens, slot.tokens), slot.computed, limit))
        longest, found = max(longest, common), None
        is_end = common == len(slot.tokens) and slot.owner is None
        if not (common >= slot.shortest if can_trim else is_end):
            found = next((one for one in reversed(checkpoints) if len(one.tokens) <= common), None)
            common = len(found.tokens) if found else 0
        rank = common, slot.owner is None, found is None
        if common and rank > best:
            best, donor, reused, checkpoint = rank, slot, common, found
    if donor is not None and donor.owner is None:
        is_whole = not can_trim and checkpoint is None
        if is_whole or len(donor.tokens) - reused <= LOSABLE_TOKENS:
            return SlotPlacement(donor, donor, reused, checkpoint, longest)
        others = [slot for slot in idle if slot is not donor]
        if not others:
            return SlotPlacement(donor, donor, reused, checkpoint, longest)
        idle = others
    return SlotPlacement(slot_to_evict(idle), donor, reused, checkpoint, longest)
