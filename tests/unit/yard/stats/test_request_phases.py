"""The phases of a request, from the steps of its way and its times."""

from __future__ import annotations

from itertools import pairwise

from modelyard.yard.requests.timings import RequestTimings
from modelyard.yard.stats.request_phases import Step, TokenCounts, phases

TOKENS = TokenCounts(30, 10, 7)


def spans(
    steps: list[Step], times: RequestTimings, *, has_stages: bool = True
) -> list[tuple[str, float, float | None]]:
    found = phases(steps, times, TOKENS, has_stages=has_stages)
    assert all(before.ended == after.began for before, after in pairwise(found)), "there is a gap"
    return [(phase.kind, phase.began, phase.ended) for phase in found]


def test_a_request_for_a_loaded_model_is_computed_from_its_arrival_on() -> None:
    times = RequestTimings(arrived=1.0, granted=1.0, started=1.0, first=2.0, last=5.0, ended=5.0)
    assert spans([Step(1.0, is_granted=True)], times) == [("prefill", 1.0, 2.0), ("decode", 2.0, 5.0)]


def test_before_anything_is_known_it_waits() -> None:
    assert spans([], RequestTimings(arrived=1.0)) == [("waiting", 1.0, None)]


def test_it_waits_for_memory_then_for_the_load_then_in_the_engine() -> None:
    steps = [Step(1.0, text="Memory"), Step(3.0, kind="loading", text="Load"), Step(6.0, is_granted=True)]
    times = RequestTimings(arrived=1.0, granted=6.0, started=7.0, first=8.0)
    assert spans(steps, times) == [
        ("waiting", 1.0, 3.0),
        ("loading", 3.0, 6.0),
        ("waiting", 6.0, 7.0),
        ("prefill", 7.0, 8.0),
        ("decode", 8.0, None),
    ]


def test_an_answer_that_was_suspended_goes_on() -> None:
    steps = [Step(1.0, is_granted=True), Step(4.0, kind="suspended"), Step(6.0, is_granted=True)]
    times = RequestTimings(arrived=1.0, granted=1.0, started=1.0, first=2.0, last=9.0, ended=9.0)
    assert spans(steps, times) == [
        ("prefill", 1.0, 2.0),
        ("decode", 2.0, 4.0),
        ("suspended", 4.0, 6.0),
        ("decode", 6.0, 9.0),
    ]


def test_a_prompt_that_was_suspended_is_taken_up_again() -> None:
    steps = [Step(1.0, is_granted=True), Step(4.0, kind="suspended"), Step(6.0, is_granted=True)]
    times = RequestTimings(arrived=1.0, granted=1.0, started=6.0, first=8.0)
    assert spans(steps, times) == [
        ("waiting", 1.0, 4.0),
        ("suspended", 4.0, 6.0),
        ("prefill", 6.0, 8.0),
        ("decode", 8.0, None),
    ]


def test_vectors_are_computed_while_the_engine_has_the_request() -> None:
    times = RequestTimings(arrived=1.0, granted=1.0, ended=2.0)
    assert spans([Step(1.0, is_granted=True)], times, has_stages=False) == [("prefill", 1.0, 2.0)]


def test_a_request_that_was_refused_at_once_has_one_phase() -> None:
    assert spans([], RequestTimings(arrived=1.0, ended=1.0)) == [("waiting", 1.0, 1.0)]


def test_the_sentences_have_the_numbers() -> None:
    times = RequestTimings(arrived=1.0, granted=1.0, started=1.0, first=2.0, last=5.0, ended=5.0)
    texts = [phase.text for phase in phases([Step(1.0, is_granted=True)], times, TOKENS)]
    assert texts == [
        "Its prompt is computed: 20 tokens, 10 tokens more were computed before",
        "It writes its answer: 7 tokens",
    ]
