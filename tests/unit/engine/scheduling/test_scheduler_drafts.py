"""Drafts in the scheduler: what was said before is guessed, and verified in one step."""

from __future__ import annotations

from support.naive_llama import Llama


def test_what_was_said_before_is_guessed_and_verified_in_one_step() -> None:
    llama = Llama(capacity=200, slots=32, max_running=1, period=4)
    first = llama.submit(list(range(10)), answer=100)
    steps = 0
    while llama.sequences:
        llama.step()
        steps += 1
    assert first.tokens[10:] == [500 + at % 4 for at in range(10, 110)]
    assert llama.right > 60
    assert steps < 50


def test_guesses_that_are_wrong_leave_nothing_behind() -> None:
    llama = Llama(capacity=200, slots=32, max_running=1, period=4, is_uncertain=lambda: True)
    first = llama.submit(list(range(10)), answer=20)
    llama.run()
    assert first.tokens[10:] == [500 + at % 4 for at in range(10, 30)]
    assert (llama.proposed > 0, llama.right) == (True, 0)


def test_nothing_is_guessed_while_prompts_are_computed() -> None:
    llama = Llama(capacity=200, slots=32, period=2)
    llama.submit([1, 2], answer=30)
    for _ in range(12):
        llama.step()
    llama.submit(list(range(40)))
    while any(sequence.pending > 1 for sequence in llama.sequences.values()):
        assert all(feed.outputs <= 1 for feed in llama.step())


def test_drafts_are_for_steps_in_which_all_decode_and_nobody_waits() -> None:
    llama = Llama(capacity=64, max_running=1)
    llama.submit([1, 2], answer=9)
    assert not llama.scheduler.only_decodes
    llama.step()
    llama.step()
    assert llama.scheduler.only_decodes
    llama.submit([3, 4])
    assert not llama.scheduler.only_decodes
