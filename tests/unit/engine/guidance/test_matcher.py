"""A matcher says what llguidance's own class says, and nothing that it does goes wrong in C."""

from __future__ import annotations

import gc
import json
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from modelyard.engine.guidance import Vocabulary, library
from modelyard.engine.guidance.matcher import Limits, Matcher
from unit.engine.guidance.words import CONTROL, END, OTHER_END, TOKENS, tokenize, vocabulary

WAIT_S = 30.0
ENDS = (END, OTHER_END)
LIMITS = {
    "initial_lexer_fuel": 100_000,
    "step_lexer_fuel": 20_000,
    "step_max_items": 500,
    "max_grammar_size": 2_000,
    "max_lexer_states": 40_000,
}
WORDS = vocabulary()
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 2, "maxLength": 12},
        "age": {"type": "integer", "minimum": 3},
        "tags": {"type": "array", "items": {"enum": ["red", "null", "日本"]}, "minItems": 2, "maxItems": 4},
    },
    "required": ["name", "tags"],
    "additionalProperties": False,
}
SUM = 'start: "sum: " expr\nexpr: term (("+" | "-") term)*\nterm: NUM | "(" expr ")"\nNUM: /[0-9]{1,3}/'


class Wrapped:
    """The vocabulary as llguidance's own class wants it."""

    tokens, special_token_ids, eos_token_id, bos_token_id = TOKENS, [END, OTHER_END, CONTROL], END, None

    def __call__(self, text: bytes) -> list[int]:
        return tokenize(text)


@pytest.fixture(scope="module")
def reference() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(Wrapped()), n_vocab=len(TOKENS), eos_token=list(ENDS))


def own(reference: LLTokenizer, grammar: str) -> LLMatcher:
    return LLMatcher(reference, grammar, log_level=0, limits=LLParserLimits(**LIMITS, verbose_errors=False))


def allowed(matcher: Matcher) -> set[int]:
    mask = matcher.compute_mask()
    assert mask is not None, matcher.error
    return set(np.flatnonzero(np.unpackbits(mask, bitorder="little")).tolist())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "grammar",
    [
        pytest.param(LLMatcher.grammar_from_json_schema(PERSON), id="schema"),
        pytest.param(LLMatcher.grammar_from_regex(r"(null|true) [a-eé]{2,9}[.!] \d{4}-\d\d"), id="regex"),
        pytest.param(SUM, id="lark"),
        pytest.param(f'start: <[{CONTROL}]> /[ab]+/ <[{CONTROL}]> "日本"', id="control tokens"),
    ],
)
def test_masks_are_those_of_llguidances_own_class(reference: LLTokenizer, grammar: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    known, matcher = own(reference, grammar), Matcher(WORDS, grammar, Limits(**LIMITS))
    closing = [TOKENS.index(text) for text in (b'"', b"}", b"]", b")", b".")]
    for step in range(300):
        assert matcher.is_stopped == known.is_stopped()
        mask = matcher.compute_mask()
        assert mask is not None
        theirs = known.compute_bitmask()
        # They may have a word more, in which there is no token.
        assert mask.tobytes() == theirs[: mask.size]
        assert not any(theirs[mask.size :])
        scores = random.standard_normal(len(TOKENS))
        scores[closing] += 5 * (step > 20)
        scores[list(ENDS)] += 10
        scores[np.unpackbits(mask, bitorder="little")[: len(TOKENS)] == 0] = -np.inf
        token = int(scores.argmax())
        assert matcher.consume(token)
        assert known.consume_token(token)
        if matcher.is_stopped:
            break
    assert matcher.is_stopped
    assert known.is_stopped()


def _wide(properties: int) -> str:
    schema = {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(properties)}}
    return LLMatcher.grammar_from_json_schema(schema)


@pytest.mark.parametrize(
    "grammar",
    [
        'start: "a',
        "start: missing",
        "start: <[9999]>",
        '{"grammars": [',
        "",
        LLMatcher.grammar_from_json_schema({"type": "strange"}),
        _wide(2000),
        "start: A\nA: /.*a.{30}/ & /.*b.{31}/ & /.*c.{29}/ & ~/.*d.{28}e/",
    ],
)
def test_what_is_refused_is_refused_in_the_same_words(reference: LLTokenizer, grammar: str) -> None:
    known, matcher = own(reference, grammar), Matcher(WORDS, grammar, Limits(**LIMITS))
    known.compute_bitmask()
    assert known.is_error()
    assert matcher.compute_mask() is None
    assert matcher.error == known.get_error()
    assert matcher.is_stopped
    assert not matcher.consume(ord("a"))
    assert not matcher.consume(END)
    assert not matcher.rollback(1)


@pytest.mark.parametrize("token", [ord("b"), CONTROL, len(TOKENS), 2**31, -1])
def test_a_token_that_may_not_follow_breaks_it_for_good(reference: LLTokenizer, token: int) -> None:
    known, matcher = own(reference, 'start: "a"'), Matcher(WORDS, 'start: "a"', Limits(**LIMITS))
    assert not matcher.consume(token)
    assert matcher.error
    if token >= 0:
        known.consume_token(token)
        assert matcher.error.splitlines()[0] == known.get_error().splitlines()[0]
    assert matcher.compute_mask() is None
    assert not matcher.consume(ord("a"))


@pytest.mark.parametrize("end", ENDS)
def test_the_end_may_be_said_where_nothing_else_can_follow(reference: LLTokenizer, end: int) -> None:
    for grammar, text in (('start: ""', b""), ('start: "ab"', b"ab")):
        known, matcher = own(reference, grammar), Matcher(WORDS, grammar)
        for each in (known.consume_token, matcher.consume):
            assert all(each(token) for token in text)
        assert known.compute_bitmask()
        assert allowed(matcher)
        assert known.consume_token(end)
        assert matcher.consume(end)
        assert matcher.is_stopped
        assert matcher.error is None


def test_a_zero_byte_does_not_end_a_grammar() -> None:
    matcher = Matcher(WORDS, 'start: "a" /\0b/ tail // and \0 so on\ntail: "c"?')
    for token in b"a\0b":
        assert token in allowed(matcher)
        assert matcher.consume(token)
    assert ord("c") in allowed(matcher)
    # As JSON it is broken, by llguidance's classes as well.
    assert Matcher(WORDS, json.dumps({"grammars": [{"lark_grammar": 'start: "a"'}]}) + "\0").error


def test_text_of_more_tokens_than_llguidance_makes_room_for_is_split_whole() -> None:
    asked: list[bytes] = []

    def split(text: bytes) -> list[int]:
        asked.append(text)
        return tokenize(text)

    text = b"0123456789" * 20
    matcher = Matcher(Vocabulary(TOKENS, [], frozenset(ENDS), split), f'start: "{text.decode()}"')
    for token in text:
        assert allowed(matcher) == {token}
        assert matcher.consume(token)
    assert matcher.is_stopped
    assert asked[:2] == [text, text]


@pytest.mark.parametrize("failing", [RuntimeError("out of order"), None])
def test_what_cannot_be_split_into_tokens_breaks_its_matcher_alone(failing: Exception | None) -> None:
    words = vocabulary()
    matcher, other = Matcher(words, 'start: "abc" "d"'), Matcher(words, 'start: "abc" "e"')
    if failing is None:
        words.detach()
    else:

        def fail(_: bytes) -> list[int]:
            raise failing

        words.attach(fail)
    assert matcher.compute_mask() is None
    assert matcher.error
    assert str(failing or "without a model") in matcher.error
    words.attach(tokenize)
    assert matcher.compute_mask() is None
    assert allowed(other) == {ord("a")}


def test_two_threads_at_once_are_told_so_and_do_no_harm() -> None:
    is_asked, goes_on = threading.Event(), threading.Event()

    def wait(text: bytes) -> list[int]:
        is_asked.set()
        assert goes_on.wait(WAIT_S)
        return tokenize(text)

    words = vocabulary()
    words.attach(wait)
    matcher = Matcher(words, 'start: "abc"')
    masks: list[Any] = []
    other = threading.Thread(target=lambda: masks.append(matcher.compute_mask()))
    other.start()
    assert is_asked.wait(WAIT_S)
    uses = (matcher.compute_mask, lambda: matcher.is_stopped, lambda: matcher.consume(ord("a")))
    for use in uses:
        with pytest.raises(RuntimeError, match="Two threads"):
            use()
    goes_on.set()
    other.join(WAIT_S)
    assert masks[0] is not None
    assert matcher.consume(ord("a"))


@pytest.fixture
def freed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    """What llguidance was told to free, in order."""
    calls: list[tuple[str, int]] = []

    def noted(kind: str, free: Any) -> Any:
        def call(pointer: int) -> None:
            calls.append((kind, pointer))
            free(pointer)

        return call

    monkeypatch.setattr(library, "free_matcher", noted("matcher", library.free_matcher))
    monkeypatch.setattr(library, "free_tokenizer", noted("tokenizer", library.free_tokenizer))
    gc.collect()
    calls.clear()
    gc.disable()
    yield calls
    gc.enable()


def test_a_vocabulary_is_freed_with_its_last_matcher_and_once(freed: list[tuple[str, int]]) -> None:
    words = vocabulary()
    pointer, gone = words.tokenizer, weakref.ref(words)
    first, second = Matcher(words, 'start: "abc"'), Matcher(words, 'start: "abd"')
    del words
    assert allowed(first) == {ord("a")}
    del first
    assert [kind for kind, _ in freed] == ["matcher"]
    assert allowed(second) == {ord("a")}
    del second
    assert gone() is None
    assert [kind for kind, _ in freed] == ["matcher", "matcher", "tokenizer"]
    assert freed[-1] == ("tokenizer", pointer)


def test_a_garbage_collection_frees_the_tokenizer_last(freed: list[tuple[str, int]]) -> None:
    words = vocabulary()
    matcher: Any = Matcher(words, 'start: "abc"')
    matcher.knot = [matcher, words]
    del words, matcher
    assert not freed
    gc.collect()
    assert [kind for kind, _ in freed] == ["matcher", "tokenizer"]
