"""What a request takes is never more than was estimated, whatever its text is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.protocol.prompts import Chat, Image, Infill, Text, Tokens, Written
from modelyard.protocol.requests import Embed, Rank, Submit, Tokenize
from modelyard.protocol.values import SequenceId
from modelyard.yard.requests.token_estimate import MAX_ENCODED, MEDIUM_TOKENS, TokenEstimate, estimate, prompt_tokens

ME = SequenceId(1)
IMAGE = Image(1, 1, bytes(3))


@given(st.text(max_size=200))
def test_a_text_has_no_more_tokens_than_bytes(text: str) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    assert prompt_tokens(Text(text)) >= size
    assert prompt_tokens(Chat(({"role": "user", "content": text},))) >= size
    assert prompt_tokens(Chat(({"role": "user", "content": (text, IMAGE)},))) >= size + MEDIUM_TOKENS
    assert prompt_tokens(Infill(text, text)) >= 2 * size
    assert prompt_tokens(Written((text, IMAGE))) >= size + MEDIUM_TOKENS


@pytest.mark.parametrize("text", ["é", "a", "😀", "a" * 9 + "😀"])
def test_so_does_a_text_that_is_too_long_to_be_encoded_for_that(text: str) -> None:
    text *= MAX_ENCODED
    assert prompt_tokens(Text(text)) >= len(text.encode())


def test_tools_count_too() -> None:
    tool = {"type": "function", "function": {"name": "f" * 500, "parameters": {"enum": ["x" * 100] * 10}}}
    assert prompt_tokens(Chat((), (tool,))) >= 1500


def test_tokens_are_as_many_as_they_are() -> None:
    assert prompt_tokens(Tokens((1, 2, 3))) == 3


@pytest.mark.parametrize(
    ("max_tokens", "max_answer", "max_context", "room", "total"),
    [
        (10, None, None, 2048, 13),
        (None, None, None, 2048, 2048),
        (None, 20, None, 2048, 23),
        (10, 20, None, 2048, 13),
        (None, None, 100, 2048, 100),
        (5000, None, None, 2048, 2048),
        (None, None, None, None, None),
        (7, None, None, None, 10),
    ],
)
def test_an_answer_takes_what_it_may_and_no_more_than_there_is_room_for(
    max_tokens: int | None, max_answer: int | None, max_context: int | None, room: int | None, total: int | None
) -> None:
    request = Submit(ME, Tokens((1, 2, 3)), max_tokens=max_tokens, max_answer=max_answer, max_context=max_context)
    assert estimate(request, room).total == total


def test_an_estimate_is_as_good_as_what_is_known() -> None:
    guessed = TokenEstimate(4000, 100, 2048)
    assert (guessed.total, guessed.accepted(1000).total) == (2048, 1100)


def test_inputs_and_documents_are_no_longer_than_the_model_takes() -> None:
    assert estimate(Embed(ME, (Text("x" * 5000), Tokens((1, 2)))), 512).total == 514
    assert estimate(Rank(ME, "q", ("x" * 5000, "y")), 512).total == 512 + 2 + 16


def test_what_is_only_tokenised_takes_nothing() -> None:
    assert estimate(Tokenize(ME, Text("x" * 1000)), 2048).total == 0
