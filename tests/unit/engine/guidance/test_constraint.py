"""Those tokens remain that the grammar lets come next."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from modelyard.engine.guidance import Constraint, ConstraintBroken, prepare
from modelyard.engine.guidance import constraint as module
from modelyard.engine.output.adjustments import Adjustments
from modelyard.engine.output.sampler import ConstrainedSampler, GreedySampler
from unit.engine.guidance.words import CONTROL, EMPTY, END, OTHER_END, SIZE, TOKENS, allowed, constraint, vocabulary

WORDS = vocabulary()
ENDS = {END, OTHER_END}


@pytest.fixture
def masks() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def accepts(over: Constraint, text: str) -> None:
    for token in text.encode():
        over.accept(token)


def test_a_token_may_come_next_where_all_its_bytes_may() -> None:
    over = constraint('start: "ab" ("c" | "é")', WORDS)
    assert {TOKENS[token] for token in allowed(over)} == {b"a", b"ab", b"abc"}
    accepts(over, "ab")
    assert {TOKENS[token] for token in allowed(over)} == {b"c", b"\xc3", "é".encode()}


@pytest.mark.parametrize("digit", ["[0-9A-F]", "[0-9a-f]", "[0-9XYZ]"])
def test_digits_of_a_code_are_not_those_of_a_number(digit: str) -> None:
    over = constraint(f"start: /{digit}{{90}}/", WORDS)
    accepts(over, "3E10" if "A" in digit else "3" * 60)
    assert b"7" in {TOKENS[token] for token in allowed(over)}


def test_a_number_has_a_bounded_length() -> None:
    over = constraint("start: /[0-9]+(e[0-9]+)?/", WORDS)
    accepts(over, "3" * 40)
    assert b"7" not in {TOKENS[token] for token in allowed(over)}


def test_an_answer_may_end_with_each_of_the_end_tokens_where_its_grammar_may() -> None:
    over = constraint("start: /a+/", WORDS)
    assert not ENDS & allowed(over)
    accepts(over, "a")
    assert allowed(over) > ENDS
    over.accept(OTHER_END)
    assert over.is_complete


def test_text_is_never_a_token_that_stands_for_none() -> None:
    over = constraint(r"start: /(.|\n)*/", WORDS)
    assert not {CONTROL, EMPTY} & allowed(over)
    assert TOKENS.index(b"<tool_call>") in allowed(over)
    accepts(over, "<control>")


def test_a_grammar_names_control_tokens_by_their_numbers() -> None:
    over = constraint(f'start: <[{CONTROL}]> "a"', WORDS)
    assert allowed(over) == {CONTROL}
    over.accept(CONTROL)
    assert allowed(over) == {ord("a")}


def test_an_answer_is_complete_where_nothing_can_follow() -> None:
    over = constraint('start: "ab"', WORDS)
    accepts(over, "a")
    assert not over.is_complete
    accepts(over, "b")
    assert over.is_complete
    over.take_back()
    assert not over.is_complete
    assert allowed(over) == {ord("b")}


@pytest.mark.parametrize("last", [ord("b"), END])
def test_the_last_token_can_be_taken_back(last: int) -> None:
    over = constraint("start: /ab*/", WORDS)
    accepts(over, "a")
    before = allowed(over)
    over.accept(last)
    over.take_back()
    assert allowed(over) == before
    assert not over.is_complete


def test_a_vocabulary_without_end_tokens_can_still_complete_an_answer() -> None:
    words = vocabulary(frozenset())
    over = constraint("start: /ab?/", words)
    assert allowed(over) == {ord("a"), TOKENS.index(b"ab")}
    accepts(over, "a")
    assert allowed(over) == {ord("b")}
    accepts(over, "b")
    assert over.is_complete
    with pytest.raises(ConstraintBroken):
        allowed(constraint('start: ""', words))


def test_an_answer_that_no_token_can_end_goes_on_to_its_limit() -> None:
    over = constraint("start: /a(b{9})?/", vocabulary(frozenset()))
    over.tokens_left = 3
    assert [over.advance(ord(letter)) for letter in "abb"] == [ord(letter) for letter in "abb"]


def test_a_token_that_may_not_follow_breaks_it() -> None:
    with pytest.raises(ConstraintBroken):
        constraint('start: "ab"', WORDS).accept(ord("b"))
    over = constraint('start: "a"', WORDS)
    over.accept(ord("a"))
    with pytest.raises(ConstraintBroken):
        over.accept(ord("a"))


def test_what_is_likely_stays_likely_and_what_is_not_allowed_has_no_probability() -> None:
    over = constraint("start: /[ab]/", WORDS)
    logits = np.arange(SIZE, dtype=np.float32)
    over.apply(logits)
    assert [logits[ord("a")], logits[ord("b")]] == [ord("a"), ord("b")]
    assert np.isneginf(np.delete(logits, [ord("a"), ord("b")])).all()


def test_a_mask_that_was_prepared_is_the_one_that_is_applied(masks: Executor) -> None:
    over = constraint("start: /[ac]b/", WORDS)
    prepare([over], masks)
    prepare([over], masks)
    assert allowed(over) == {ord("a"), ord("c"), TOKENS.index(b"ab")}
    over.accept(ord("a"))
    prepare([over], masks)
    assert allowed(over) == {ord("b")}


@pytest.mark.parametrize("is_prepared", [True, False])
def test_the_most_likely_token_is_the_same_whether_it_is_asked_for_first(is_prepared: bool, masks: Executor) -> None:
    random = np.random.default_rng(5)
    rules = 'start: "[" (/[0-9]+(e[0-9]+)?/ | /"[^"]*"/) "]"'
    context: Any = None
    asking = ConstrainedSampler(GreedySampler(Adjustments({})), constraint(rules, WORDS))
    masking = constraint(rules, WORDS)
    for step in range(70):
        logits = random.normal(0, 1, SIZE).astype(np.float32)
        # A number without end, as long as it may be.
        logits[ord("7")] += 5 if step > 3 else 0
        masked = logits.copy()
        masking.apply(masked)
        expected = int(masked.argmax())
        if is_prepared:
            prepare([asking.constraint], masks)
        assert asking.sample(context, 0, logits) == expected
        masking.accept(expected)
        if masking.is_complete:
            break


def test_masks_are_prepared_together_and_each_fails_by_itself(masks: Executor) -> None:
    both = [constraint('start: "a"', WORDS), constraint('start: ""', vocabulary(frozenset()))]
    prepare(both, masks)
    assert allowed(both[0]) == {ord("a")}
    with pytest.raises(ConstraintBroken):
        allowed(both[1])


def test_a_mask_that_never_comes_breaks_its_answer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck(Executor):
        def submit(self, *_: Any, **__: Any) -> Future[Any]:
            return Future()

    monkeypatch.setattr(module, "_MAX_MASK_S", 0.0)
    over = constraint('start: "a"', WORDS)
    prepare([over], Stuck())
    with pytest.raises(ConstraintBroken, match="took longer"):
        allowed(over)


class Last:
    """Takes the last of the tokens that are allowed, and is sure of some."""

    can_verify = True

    def __init__(self, *, sure: bool) -> None:
        self.sure = sure

    def sample(self, _context: Any, _index: int, logits: Any) -> int:
        return int(np.flatnonzero(np.isfinite(logits))[-1])

    def is_certain(self, _logits: Any, _token: int) -> bool:
        return self.sure

    def free(self) -> None:
        pass


@pytest.mark.parametrize("sure", [True, False])
def test_a_token_that_is_not_certain_is_sampled_again(sure: bool) -> None:
    over = constraint('start: "a" ("b" | "c")', WORDS)
    sampler = ConstrainedSampler(Last(sure=sure), over)
    context: Any = None
    accepts(over, "a")
    token = sampler.sample(context, 0, np.zeros(SIZE, np.float32))
    assert token == ord("c")
    assert sampler.is_certain(np.zeros(SIZE, np.float32), token) is sure
    assert over.is_complete is sure
    if not sure:
        assert sampler.sample(context, 0, np.zeros(SIZE, np.float32)) == token
