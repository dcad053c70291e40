"""A gap in a text becomes tokens in the order on which models are trained."""

from __future__ import annotations

import pytest

from modelyard.engine.input.prompt_encoder import PromptReader, PromptVocabulary
from modelyard.engine.input.prompt_tokenizer import PromptTokenizer
from modelyard.engine.llama import InfillTokens, SpecialToken
from modelyard.errors import ContextLengthExceeded, UnsupportedOperation
from modelyard.protocol.prompts import Infill, Pieces

BEGIN = 1
PREFIX, SUFFIX, MIDDLE, REPOSITORY, FILE = range(500, 505)
FIRST_CHARACTER = 10
CONTEXT = 64


class Characters:
    """A vocabulary of one token a character."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        assert not add_special
        return [FIRST_CHARACTER + ord(character) for character in text]

    def control_text(self, _token: int) -> str:
        return ""

    def special_tokens(self) -> list[SpecialToken]:
        return []

    def begin_tokens(self) -> list[int]:
        return [BEGIN]

    def begin_token(self) -> str:
        return "<s>"


def reader(infill: InfillTokens | None) -> PromptReader:
    return PromptReader(
        PromptTokenizer(Characters()),
        chat_format=None,
        why_no_chat="",
        vocabulary=PromptVocabulary(600, infill),
        context_length=CONTEXT,
    )


def shown(tokens: list[int]) -> str:
    """The tokens as text, those that mark something in angle brackets."""
    names = {BEGIN: "<s>", PREFIX: "<pre>", SUFFIX: "<suf>", MIDDLE: "<mid>", REPOSITORY: "<repo>", FILE: "<file>"}
    return "".join(names.get(token) or chr(token - FIRST_CHARACTER) for token in tokens)


GAP_ONLY = InfillTokens(PREFIX, SUFFIX, MIDDLE)
WITH_FILES = InfillTokens(PREFIX, SUFFIX, MIDDLE, REPOSITORY, FILE)


def test_a_gap_is_written_as_prefix_suffix_and_the_beginning_of_the_middle() -> None:
    read = reader(GAP_ONLY).read(Infill("def f(", "): pass", "a"))
    assert shown(read.tokens) == "<s><pre>def f(<suf>): pass<mid>a"


def test_other_files_come_first_each_behind_its_name() -> None:
    read = reader(WITH_FILES).read(Infill("x", "y", files=(("b", "1\n"), ("c", "2\n"))))
    assert shown(read.tokens) == "<s><repo>myproject\n<file>b\n1\n<file>c\n2\n<file>filename\n<pre>x<suf>y<mid>"


def test_without_tokens_for_files_a_line_separates_them() -> None:
    read = reader(GAP_ONLY).read(Infill("x", "y", files=(("b", "1"),)))
    assert shown(read.tokens) == "<s>\n\n--- snippet ---\n\n1<pre>x<suf>y<mid>"


@pytest.mark.parametrize("reserved", [0, 1, 10])
def test_files_leave_room_for_the_answer_and_lose_their_beginning(reserved: int) -> None:
    read = reader(WITH_FILES).read(Infill("x", "y", files=(("b", "1234567890" * 1000),), reserved=reserved))
    assert len(read.tokens) == CONTEXT - max(1, reserved)
    assert shown(read.tokens).endswith("7890<file>filename\n<pre>x<suf>y<mid>")
    assert shown(read.tokens).startswith("<s>")


def test_files_are_left_out_where_the_gap_fills_the_context() -> None:
    read = reader(WITH_FILES).read(Infill("x" * (CONTEXT - 6), "y", files=(("b", "1"),)))
    assert "b" not in shown(read.tokens)


def test_a_gap_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ContextLengthExceeded):
        reader(WITH_FILES).read(Infill("x" * CONTEXT, "y"))


def test_a_model_without_tokens_for_gaps_is_named_a_way_out() -> None:
    with pytest.raises(UnsupportedOperation, match="trained to fill gaps"):
        reader(None).read(Infill("x", "y"))


def test_texts_and_ids_are_joined_and_begin_once() -> None:
    texts = reader(None)
    assert shown(texts.read(Pieces(("ab", FIRST_CHARACTER + ord("c"), "d"))).tokens) == "<s>abcd"
    assert shown(texts.read(Pieces((FIRST_CHARACTER + ord("c"), "d"))).tokens) == "cd"
