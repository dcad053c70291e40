"""A query and a document become one input, or are refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from modelyard.engine.pooling.rank_input import PairReader, ranking_frame
from modelyard.errors import InputTooLong, InvalidRequest, UnusableModel

BEGIN, END, SEPARATOR = 1, 2, 3
CONTROL = {"<q>": 4, "<end>": 5}
FIRST_LETTER = 10


@dataclass
class Letters:
    """A token for each letter, and two control tokens."""

    template: str | None = None

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        assert not add_special
        tokens = []
        while text:
            special = next((name for name in CONTROL if parse_special and text.startswith(name)), None)
            tokens.append(FIRST_LETTER + ord(text[0]) if special is None else CONTROL[special])
            text = text[len(special or "x") :]
        return tokens

    def pieces(self, tokens: Sequence[int]) -> list[bytes]:
        return [chr(token - FIRST_LETTER).encode() for token in tokens]

    def is_control(self, token: int) -> bool:
        return token < FIRST_LETTER

    def pair_tokens(self) -> tuple[list[int], list[int], list[int]]:
        return [BEGIN], [END, SEPARATOR], [END]

    def ranking_template(self) -> str | None:
        return self.template


def reader(template: str | None = None, longest: int = 40) -> PairReader:
    return PairReader(Letters(template), vocab_size=FIRST_LETTER + 128, longest=longest)


def ids(text: str) -> list[int]:
    return [FIRST_LETTER + ord(letter) for letter in text]


TEMPLATE = "<q>Query: {query} Document: {document}<end>yes?"


def test_two_texts_are_one_behind_the_other() -> None:
    assert reader().read("ab", ["c", ""]) == [
        [BEGIN, *ids("ab"), END, SEPARATOR, *ids("c"), END],
        [BEGIN, *ids("ab"), END, SEPARATOR, END],
    ]


def test_a_template_says_what_is_around_them() -> None:
    (tokens,) = reader(TEMPLATE).read("a", ["b"])
    assert tokens == [4, *ids("Query: a Document: b"), 5, *ids("yes?")]


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_what_a_text_spells_as_a_control_token_is_text(template: str | None) -> None:
    (tokens,) = reader(template).read("<q>", ["<end>"])
    letters = [token for token in tokens if token >= FIRST_LETTER]
    assert b"<end>" in b"".join(Letters().pieces(letters))
    assert len([token for token in tokens if token < FIRST_LETTER]) == (4 if template is None else 2)


def test_a_query_that_names_the_place_of_the_document_is_a_query() -> None:
    (tokens,) = reader(TEMPLATE).read("{document}", ["x"])
    assert tokens == [4, *ids("Query: {document} Document: x"), 5, *ids("yes?")]


@pytest.mark.parametrize("template", ["<q>{query}<end>", "<q>{document}<end>"])
def test_a_template_without_a_place_for_one_of_them_is_refused(template: str) -> None:
    with pytest.raises(UnusableModel, match=r"no place for \{(query|document)\}"):
        ranking_frame(Letters(template))


@pytest.mark.parametrize(
    ("query", "documents", "said"),
    [
        ("q" * 5, ["d", "d" * 32], r"'documents\[1\]' has 32 tokens, but the model takes 31 tokens at most"),
        ("q", ["d" * 100_000], r"'documents\[0\]' has far too much text"),
        ("q" * 37, ["d"], "'query' has 41 tokens, but the model takes 40"),
        ("q" * 100_000, ["d"], "'query' has far too much text"),
    ],
)
def test_what_is_too_long_is_refused_with_its_place(query: str, documents: list[str], said: str) -> None:
    with pytest.raises(InputTooLong, match=said):
        reader().read(query, documents)


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_documents_are_cut_where_that_is_wanted(template: str | None) -> None:
    short, cut, long = reader(template).read("q", ["xxxx", "z" * 9, "w" * 9], 5)
    assert [tokens.count(ids(letter)[0]) for letter, tokens in zip("xzw", (short, cut, long), strict=True)] == [4, 5, 5]


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_a_document_that_is_cut_fills_the_room_that_there_is(template: str | None) -> None:
    (tokens,) = reader(template).read("q", ["d" * 100_000], 4096)
    assert len(tokens) == 40


def test_tokens_outside_of_the_vocabulary_are_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"'documents\[1\]', or the query, has parts for which"):
        reader().read("q", ["d", "ü" * 2 + "\u1234"])
