"""Which checkpoints are made of a prompt, and which are kept."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modelyard.engine.kv.cache import KvCache, OwnWindow, RestoreCheckpoint, ShareCells, Slot, TrimCells
from modelyard.engine.kv.checkpoints import (
    CHECKPOINT_INTERVAL,
    MIN_CHECKPOINT_DISTANCE,
    Checkpoint,
    CheckpointStore,
    checkpoint_positions,
)
from modelyard.engine.kv.prefix import place
from modelyard.protocol.values import SequenceId

END = 99
SIZE = 10


def words(first: int, length: int = 100) -> list[int]:
    return list(range(1000 * first, 1000 * first + length))


def checkpoint(tokens: list[int], salt: str = "") -> Checkpoint:
    return Checkpoint(tuple(tokens), salt, np.zeros(SIZE, np.uint8))


def kept(store: CheckpointStore) -> list[int]:
    return sorted(len(each.tokens) for each in store)


# Where they are made


def test_the_ends_of_the_first_and_the_last_turn_get_one() -> None:
    system, first, second = [*words(1), END], [*words(2), END], [*words(3), END]
    conversation = [*system, *first, *second, 7]
    assert checkpoint_positions(conversation, 0, 0, {END}) == [101, 303]
    # The next turn of a conversation that is known up to there.
    assert checkpoint_positions([*conversation, *words(4), END, 7], 304, 304, {END}) == [405]


def test_a_short_question_behind_a_system_prompt_does_not_take_its_place() -> None:
    assert checkpoint_positions([*words(1), END, 5, 6, END, 7], 0, 0, {END}) == [101]


def test_a_prompt_without_turns_gets_one_before_its_last_token() -> None:
    assert checkpoint_positions(words(1), 0, 0, {END}) == [99]
    long_start = [*words(1), END, *words(2)]
    assert checkpoint_positions(long_start, 0, 0, {END}) == [101, 200]


def test_where_a_prompt_parts_from_what_is_known_it_gets_one() -> None:
    assert checkpoint_positions([*words(1), *words(2), END, 7], 0, 70, {END}) == [70, 201]


def test_a_long_prompt_gets_more_between_them() -> None:
    positions = checkpoint_positions(words(1, 3 * CHECKPOINT_INTERVAL), 100, 100, {END})
    assert positions == [CHECKPOINT_INTERVAL, 2 * CHECKPOINT_INTERVAL, 3 * CHECKPOINT_INTERVAL - 1]


@given(st.lists(st.sampled_from([1, 2, END]), min_size=1, max_size=400), st.data())
def test_they_lie_apart_in_what_is_computed(tokens: list[int], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(tokens) - 1))
    common = data.draw(st.integers(start, len(tokens) - 1))
    positions = checkpoint_positions(tokens, start, common, {END})
    for before, after in zip([start, *positions], positions, strict=False):
        assert after - before >= MIN_CHECKPOINT_DISTANCE
    assert all(position < len(tokens) for position in positions)


# Which are kept


def test_what_no_slot_begins_with_is_dropped_first() -> None:
    store = CheckpointStore(2 * SIZE)
    store.add(checkpoint(words(1, 50)), [])
    store.add(checkpoint(words(2, 60)), [])
    store.add(checkpoint(words(3, 70)), [(words(1), "")])
    assert kept(store) == [50, 70]
    # One of other requests does not count, though its tokens are the same.
    store.add(checkpoint(words(2, 60)), [(words(1), ""), (words(3), "other")])
    assert kept(store) == [50, 60]


def test_what_saves_least_is_dropped_until_it_is_used_again() -> None:
    system = words(1, 500)
    held = [(system + words(number), "") for number in range(2, 9)]
    store = CheckpointStore(3 * SIZE)
    first = checkpoint(system)
    store.add(first, held)
    turns = [checkpoint(system + words(number)) for number in range(2, 9)]
    for turn in turns:
        store.add(turn, held)
    # Each of the turns saves a fifth of what the system prompt saves, as long as that is used now and then.
    assert first in list(store)
    for turn in turns * 4:
        store.add(turn, held)
    assert first not in list(store)


def test_another_owners_checkpoints_do_not_push_out_the_few_of_one() -> None:
    held = [(words(number), salt) for number, salt in enumerate("abbbbbb")]
    store = CheckpointStore(3 * SIZE)
    for number, salt in enumerate("abbbbbb"):
        store.add(checkpoint(words(number, 90), salt), held)
    assert sorted(each.salt for each in store) == ["a", "b", "b"]


def test_one_that_is_too_large_or_there_already_changes_nothing() -> None:
    store = CheckpointStore(SIZE)
    store.add(checkpoint(words(1)), [])
    store.add(checkpoint(words(1)), [])
    store.add(Checkpoint((1,), "", np.zeros(SIZE + 1, np.uint8)), [])
    assert (kept(store), store.size_bytes) == ([100], SIZE)


def test_one_that_is_little_longer_than_another_is_not_worth_a_copy() -> None:
    store = CheckpointStore(SIZE)
    store.add(checkpoint(words(1)), [])
    assert store.covers(words(1, 100 + MIN_CHECKPOINT_DISTANCE - 1), "")
    assert not store.covers(words(1, 100 + MIN_CHECKPOINT_DISTANCE), "")
    assert not store.covers(words(1), "other")


# What they are used for


def slot(index: int, tokens: list[int], owner: int | None = None, computed: int = 10**6) -> Slot:
    owned = None if owner is None else SequenceId(owner)
    return Slot(index, list(tokens), list(range(len(tokens))), min(computed, len(tokens)), owned)


def test_a_prefix_of_a_longer_conversation_is_shared_at_its_checkpoint() -> None:
    system = words(1)
    at_end, beyond = checkpoint(system), checkpoint([*system, *words(2)])
    longer, running, empty = slot(0, system + words(2)), slot(1, system + words(3), owner=4), slot(2, [])
    placed = place(system + words(5), [longer, running, empty], can_trim=False, checkpoints=[at_end])
    assert placed is not None
    assert (placed.slot, placed.donor, placed.reused, placed.checkpoint) == (empty, longer, 100, at_end)
    # Of a running sequence only what is computed.
    placed = place(system + words(5), [running, empty], can_trim=False, checkpoints=[at_end])
    assert placed is not None
    assert (placed.slot, placed.donor, placed.checkpoint) == (empty, running, at_end)
    placed = place(
        system + words(5), [slot(1, system, owner=4, computed=99), empty], can_trim=False, checkpoints=[at_end]
    )
    assert placed is not None
    assert (placed.donor, placed.common) == (None, 99)
    # A checkpoint without cells is of no use.
    placed = place(system + words(2) + [7], [slot(0, system), empty], can_trim=False, checkpoints=[at_end, beyond])
    assert placed is not None
    assert (placed.reused, placed.checkpoint) == (100, None)


def test_a_conversation_that_loses_little_goes_on_in_place_from_its_checkpoint() -> None:
    turn = checkpoint(words(1))
    cache = KvCache(1000, 2, checkpoints=CheckpointStore(SIZE))
    mine = cache.slots[0]
    cache.extend(mine, [*words(1), 7, 7])
    cache.commit([mine])
    placed = place([*words(1), 8, 9], cache.slots, can_trim=False, checkpoints=[turn])
    assert placed is not None
    assert placed.slot is placed.donor is mine
    cache.trim(mine, placed.reused, placed.checkpoint)
    assert cache.operations == [RestoreCheckpoint(0, turn), TrimCells(0, 100)]
    cache.operations.clear()
    cache.share(mine, cache.slots[1], 100, turn)
    assert cache.operations == [ShareCells(0, 1, 100), RestoreCheckpoint(1, turn)]


# Windows


def test_a_prefix_whose_window_is_known_needs_no_checkpoint() -> None:
    turn, other, empty = checkpoint(words(1, 40)), slot(0, words(1)), slot(1, [])
    for shortest, expected in ((60, (70, None)), (71, (40, turn))):
        other.shortest = shortest
        placed = place([*words(1, 70), 7, 8], [other, empty], can_trim=True, checkpoints=[turn])
        assert placed is not None
        assert (placed.donor, placed.reused, placed.checkpoint) == (other, *expected)


def test_slots_share_no_cells_of_short_windows() -> None:
    turn, store = checkpoint(words(1)), CheckpointStore(SIZE)
    cache = KvCache(1000, 3, checkpoints=store, can_trim=True)
    cache.has_short_windows = True
    mine = cache.slots[0]
    cache.extend(mine, words(1))
    cache.commit([mine])
    cache.share(mine, cache.slots[1], 90)
    cache.share(mine, cache.slots[2], 100, turn)
    assert cache.operations == [ShareCells(0, 1, 90), OwnWindow(1), ShareCells(0, 2, 100), RestoreCheckpoint(2, turn)]


def test_the_end_of_a_prefix_is_evicted_within_its_window_or_to_a_checkpoint() -> None:
    for shortest, left in ((600, 700), (701, 500)):
        store = CheckpointStore(SIZE)
        store.add(checkpoint(words(1, 500)), [(words(1, 500), "")])
        cache = KvCache(1000, 2, checkpoints=store, can_trim=True)
        idle = cache.slots[0]
        cache.extend(idle, words(1, 1000))
        cache.make_idle(idle)
        idle.shortest = shortest
        assert cache.make_room(300)
        assert len(idle.tokens) == left


def test_a_lower_limit_drops_the_least_recently_used() -> None:
    store = CheckpointStore(3 * SIZE)
    for number in (1, 2, 3):
        store.add(checkpoint(words(number, 100 * number)), [])
    store.limit(SIZE)
    assert kept(store) == [300]
    store.limit(0)
    assert (kept(store), store.size_bytes) == ([], 0)
