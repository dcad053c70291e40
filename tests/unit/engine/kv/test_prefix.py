"""Where a new sequence goes in the cache."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelyard.engine.kv.cache import Slot
from modelyard.engine.kv.prefix import LOSABLE_TOKENS, place
from modelyard.engine.kv.prefix_tree import common_prefix
from modelyard.protocol.values import SequenceId

SYSTEM = list(range(100))


def slot(
    index: int,
    tokens: list[int],
    *,
    owner: int | None = None,
    last_used: int = 0,
    computed: int = 10**6,
    shortest: int = 0,
) -> Slot:
    cells = list(range(len(tokens)))
    owned = None if owner is None else SequenceId(owner)
    return Slot(index, list(tokens), cells, min(computed, len(tokens)), owned, last_used, shortest)


@given(st.lists(st.integers(0, 1), max_size=200), st.lists(st.integers(0, 1), max_size=200), st.integers(0, 200))
def test_the_common_prefix_is_the_longest(a: list[int], b: list[int], shared: int) -> None:
    b = a[:shared] + b
    length = common_prefix(a, b)
    assert a[:length] == b[:length]
    assert length == min(len(a), len(b)) or a[length] != b[length]


def test_a_conversation_goes_on_in_its_own_slot() -> None:
    first, other = slot(0, SYSTEM, last_used=1), slot(1, [7, 7, 7], last_used=2)
    placed = place([*SYSTEM, 5, 6], [first, other], can_trim=True)
    assert placed is not None
    assert (placed.slot, placed.donor, placed.reused) == (first, first, 100)


def test_the_last_token_is_never_reused() -> None:
    placed = place(SYSTEM, [slot(0, SYSTEM)], can_trim=True)
    assert placed is not None
    assert placed.reused == 99


def test_a_shared_beginning_is_shared_and_the_other_conversation_kept() -> None:
    other = slot(0, [*SYSTEM, *[8] * (LOSABLE_TOKENS + 1)])
    empty = slot(1, [])
    placed = place([*SYSTEM, 9], [other, empty], can_trim=True)
    assert placed is not None
    assert (placed.slot, placed.donor, placed.reused) == (empty, other, 100)


def test_without_another_slot_the_other_conversations_end_is_given_up() -> None:
    other = slot(0, [*SYSTEM, *[8] * (LOSABLE_TOKENS + 1)])
    running = slot(1, [1, 2], owner=5)
    placed = place([*SYSTEM, 9], [other, running], can_trim=True)
    assert placed is not None
    assert (placed.slot, placed.donor) == (other, other)


def test_a_running_sequence_shares_what_is_computed_of_it() -> None:
    running, empty = slot(0, SYSTEM, owner=5, computed=60), slot(1, [])
    placed = place([*SYSTEM, 9], [running, empty], can_trim=True)
    assert placed is not None
    assert (placed.slot, placed.donor, placed.reused) == (empty, running, 60)


def test_with_nothing_to_reuse_an_empty_slot_is_taken_then_the_one_unused_for_longest() -> None:
    old, new, empty = slot(0, [1], last_used=1), slot(1, [2], last_used=2), slot(2, [], last_used=3)
    placed = place([9, 9], [old, new, empty], can_trim=True)
    assert placed is not None
    assert (placed.slot, placed.donor, placed.reused) == (empty, None, 0)
    placed = place([9, 9], [new, old], can_trim=True)
    assert placed is not None
    assert placed.slot is old


def test_with_every_slot_owned_there_is_no_place() -> None:
    assert place([1, 2], [slot(0, [1], owner=3)], can_trim=True) is None


def test_a_state_that_cannot_be_cut_is_continued_only_as_a_whole() -> None:
    whole, longer = slot(0, SYSTEM), slot(1, [*SYSTEM, 8])
    placed = place([*SYSTEM, 9], [longer, whole], can_trim=False)
    assert placed is not None
    assert (placed.slot, placed.donor, placed.reused) == (whole, whole, 100)
    placed = place([*SYSTEM, 9], [longer, slot(2, SYSTEM, owner=1)], can_trim=False)
    assert placed is not None
    assert (placed.slot, placed.donor, placed.reused) == (longer, None, 0)


@given(
    st.lists(st.integers(0, 1), min_size=1, max_size=40),
    st.lists(st.tuples(st.lists(st.integers(0, 1), max_size=40), st.booleans(), st.integers(0, 40)), max_size=5),
    st.booleans(),
)
def test_any_placement_can_be_carried_out_and_reuses_the_most(
    tokens: list[int], held: list[tuple[list[int], bool, int]], can_trim: bool
) -> None:
    slots = [
        slot(index, content, owner=index if owned else None, last_used=index, computed=computed if owned else 10**6)
        for index, (content, owned, computed) in enumerate(held)
    ]
    placed = place(tokens, slots, can_trim=can_trim)
    if placed is None:
        assert all(s.owner is not None for s in slots)
        return
    assert placed.slot.owner is None
    usable = [
        min(common_prefix(tokens, s.tokens), s.computed, len(tokens) - 1)
        for s in slots
        if can_trim or (s.owner is None and tokens[:-1][: len(s.tokens)] == s.tokens)
    ]
    assert placed.reused == max(usable, default=0)
    assert (placed.donor is None) == (placed.reused == 0)
    if placed.donor is not None:
        assert placed.donor.tokens[: placed.reused] == tokens[: placed.reused]
        assert placed.reused <= placed.donor.computed
        assert can_trim or (placed.donor is placed.slot and placed.reused == len(placed.slot.tokens))


def test_of_two_that_hold_the_same_beginning_the_idle_one_gives_it() -> None:
    idle, running = slot(0, SYSTEM), slot(1, SYSTEM, owner=3)
    for slots in ([idle, running], [running, idle]):
        placed = place([*SYSTEM, 9], slots, can_trim=True)
        assert placed is not None
        assert (placed.slot, placed.donor) == (idle, idle)


def test_a_conversation_that_loses_no_more_than_a_templates_end_goes_on_in_place() -> None:
    for lost, in_place in ((LOSABLE_TOKENS, True), (LOSABLE_TOKENS + 1, False)):
        other, empty = slot(0, [*SYSTEM, *[8] * lost]), slot(1, [])
        placed = place([*SYSTEM, 9], [other, empty], can_trim=True)
        assert placed is not None
        assert (placed.slot is other) == in_place


def test_a_restored_state_is_reused_only_as_far_as_it_is_whole() -> None:
    for shortest, reused in ((100, 100), (101, 0)):
        restored, empty = slot(0, [*SYSTEM, 8, 8], shortest=shortest), slot(1, [])
        placed = place([*SYSTEM, 9], [restored, empty], can_trim=True)
        assert placed is not None
        assert placed.reused == reused
    running, empty = slot(0, [*SYSTEM, 8], owner=5, shortest=101), slot(1, [])
    placed = place([*SYSTEM, 9], [running, empty], can_trim=True)
    assert placed is not None
    assert (placed.slot, placed.donor) == (empty, None)


def test_a_slot_that_a_sequence_waits_for_is_taken_last() -> None:
    awaited, newer = slot(0, [1], last_used=1), slot(1, [2], last_used=2)
    awaited.awaited_by = SequenceId(4)
    placed = place([9, 9], [awaited, newer], can_trim=True)
    assert placed is not None
    assert placed.slot is newer
