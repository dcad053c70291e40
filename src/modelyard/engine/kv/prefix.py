"""Prefix reuse: chooses the slot of a new sequence so that the least of it must be computed again. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelyard.engine.kv.cache import Slot, as_one, eviction_candidate
from modelyard.engine.kv.placeholders import end_outside_span

# A prefix that loses at most this many tokens is continued in place: the next turn of a conversation differs from its
# last by the end of the template. A prefix that would lose more is needed by another conversation too, and is shared.
LOSABLE_TOKENS = 16

_STRIDE = 64


@dataclass(frozen=True, slots=True)
class SlotPlacement:
    """A new sequence goes into ``slot`` and reuses ``reused`` tokens of ``donor``, which may be the same slot."""

    slot: Slot
    donor: Slot | None
    reused: int


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the length of the longest common prefix of two token lists."""
    end = min(len(a), len(b))
    at = 0
    while at < end and a[at : at + _STRIDE] == b[at : at + _STRIDE]:
        at += _STRIDE
    if at >= end:
        return end
    while at < end and a[at] == b[at]:
        at += 1
    return at


def place(tokens: Sequence[int], slots: Sequence[Slot], *, can_trim: bool, salt: str = "") -> SlotPlacement | None:
    """Choose the slot and the donor for a sequence that begins with ``tokens``; None where all slots are owned.

    Only tokens computed for requests of the same ``salt`` are reused: the time to the first token reveals whether a
    prefix was cached, which must not leak between owners. The last token is never reused, since its logits are needed.
    An image is reused whole or not at all. Where the model cannot trim (a recurrent state), only an idle slot whose
    whole content is a prefix of ``tokens`` can be continued, in place.
    """
    idle = [slot for slot in slots if slot.owner is None]
    if not idle:
        return None
    limit = len(tokens) - 1
    donor, reused = None, 0
    for slot in slots if can_trim else idle:
        if slot.salt != salt:
            continue
        common = end_outside_span(tokens, min(common_prefix(tokens, slot.tokens), slot.computed, limit))
        if common < (slot.shortest if can_trim else len(slot.tokens)):
            continue
        if common > reused or (common and common == reused and slot.owner is None):
            donor, reused = slot, common
    if donor is not None and donor.owner is None:
        if len(donor.tokens) - reused <= LOSABLE_TOKENS or not can_trim:
            return SlotPlacement(donor, donor, reused)
        others = [slot for slot in idle if slot is not donor]
        if not others:
            return SlotPlacement(donor, donor, reused)
        idle = others
    return SlotPlacement(eviction_candidate(idle, as_one), donor, reused)
