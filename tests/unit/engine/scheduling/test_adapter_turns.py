"""Sequences with different adapters, which take turns."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.engine.kv.adapter_set import NO_ADAPTERS, adapter_salt
from modelyard.engine.scheduling.adapter_turns import TURN_S, AdapterTurns
from support.naive_llama import Llama

A, B = (("a", 1.0),), (("b", 1.0),)
BOTH = (("a", 1.0), ("b", 0.5))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), st.booleans())
def test_any_mix_of_adapters_is_served_and_ends(seed: int, can_trim: bool) -> None:
    chance = random.Random(seed)
    slots = chance.randint(1, 5)
    llama = Llama(
        capacity=chance.randint(8, 40),
        slots=slots,
        max_running=chance.randint(1, slots),
        can_trim=can_trim,
        checkpoints=chance.randint(0, 6),
        period=chance.randint(1, 5) if can_trim else None,
    )
    for _ in range(chance.randint(1, 100)):
        match chance.randrange(6):
            case 0 | 1:
                prompt = [chance.randint(1, 2) for _ in range(chance.randint(1, llama.capacity - 1))]
                llama.submit(prompt, chance.randint(1, 12), adapters=chance.choice((NO_ADAPTERS, A, B, BOTH)))
            case 2 if llama.sequences:
                llama.cancel(chance.choice(list(llama.sequences)))
            case 3:
                llama.step(is_full=chance.random() < 0.3)
            case _:
                llama.step()
    llama.run()
    assert llama.scheduler.is_idle


def test_streams_with_the_same_adapters_are_in_the_same_steps() -> None:
    llama = Llama(capacity=256, max_running=4)
    for adapters in (NO_ADAPTERS, A, A, NO_ADAPTERS):
        llama.submit([1, 2], answer=40, adapters=adapters)
    together = {frozenset(feed.sequence.id for feed in llama.step()) for _ in range(60)}
    assert {frozenset((0, 3)), frozenset((1, 2))} <= together


def test_a_prompt_is_not_reused_with_other_adapters() -> None:
    llama = Llama(capacity=64)
    prompt = list(range(1, 13))
    first = llama.submit(prompt, answer=1, adapters=A)
    llama.run()
    other = llama.submit(prompt, answer=1, adapters=B)
    scaled = llama.submit(prompt, answer=1, adapters=(("a", 0.5),))
    again = llama.submit(prompt, answer=1, adapters=A)
    llama.run()
    assert [each.cached_tokens for each in (first, other, scaled, again)] == [0, 0, 0, len(prompt) - 1]


def test_adapters_change_the_salt_and_none_leave_it() -> None:
    salts = [adapter_salt(salt, adapters) for salt in ("", "ab") for adapters in (A, B, BOTH, (("a", 0.5),))]
    assert len(set(salts)) == len(salts)
    assert all(set(salt) <= set("0123456789abcdef") for salt in salts)
    assert adapter_salt("ab", NO_ADAPTERS) == "ab"


def test_a_turn_lasts_until_its_time_is_over_and_then_the_others_have_one() -> None:
    turns, sets = AdapterTurns(), [NO_ADAPTERS, A, B]
    served = []
    for _ in range(12):
        served.append(turns.begin(sets))
        turns.charge(TURN_S / 2)
    assert served[0::2] == served[1::2]
    assert served[0::2] == [NO_ADAPTERS, A, B, NO_ADAPTERS, A, B]


def test_a_set_that_comes_back_waits_behind_those_that_stayed() -> None:
    turns = AdapterTurns()
    for expected in (A, B, A):
        assert turns.begin([A] if not turns.current else [A, B]) == expected
        turns.charge(TURN_S)
    assert turns.begin([NO_ADAPTERS, B, BOTH]) == B


def test_drafts_are_asked_for_the_sequences_whose_adapters_have_their_turn() -> None:
    llama = Llama(capacity=256, max_running=2)
    first, second = llama.submit([1, 2], answer=40, adapters=A), llama.submit([3, 4], answer=40, adapters=B)
    for _ in range(6):
        llama.step()
    turn = llama.scheduler.begin_turn()
    assert turn in ([first], [second])
    assert {feed.sequence for feed in llama.step()} == set(turn)
