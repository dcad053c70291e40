"""Prompts become tokens, or are refused before they cost anything."""

from __future__ import annotations

import pytest

from modelyard.engine.messages import Chat, Text, Tokens
from modelyard.engine.prompt import PromptReader
from modelyard.engine.template import ChatTemplate
from modelyard.errors import ContextLengthExceeded, InvalidRequest, UnsupportedOperation

CONTEXT = 50


class Words:
    """A tokeniser of one token a word, that counts what it is given; token 1 begins a text."""

    def __init__(self) -> None:
        self.characters = 0

    def __call__(self, text: str, add_begin: bool) -> list[int]:
        self.characters += len(text)
        return [1] * add_begin + [7] * len(text.replace("<s>", " <s> ").split())


def reader(template: str | None = "{{ messages[0].content }}", words: Words | None = None) -> PromptReader:
    return PromptReader(
        words or Words(),
        template=None if template is None else ChatTemplate(template, bos_token="<s>", eos_token=""),
        why_no_chat="no template here",
        begin_token="<s>",
        vocab_size=100,
        context_length=CONTEXT,
    )


def chat(text: str) -> Chat:
    return Chat(({"role": "user", "content": text},))


def test_a_text_begins_with_the_begin_token_once() -> None:
    assert reader().read(Text("a b")) == [1, 7, 7]
    assert reader("{{ bos_token }}{{ messages[0].content }}").read(chat("a b")) == [7, 7, 7]


def test_token_ids_are_taken_as_they_are() -> None:
    assert reader().read(Tokens((3, 99))) == [3, 99]


@pytest.mark.parametrize("token", [-1, 100])
def test_ids_outside_the_vocabulary_are_refused(token: int) -> None:
    with pytest.raises(InvalidRequest, match=f"token {token}, .* ids 0 to 99"):
        reader().read(Tokens((5, token)))


def test_a_chat_needs_a_template_and_a_text_does_not() -> None:
    with pytest.raises(UnsupportedOperation, match="no template here"):
        reader(None).read(chat("a"))
    assert reader(None).read(Text("a")) == [1, 7]


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        reader().read(Tokens(()))


def test_a_prompt_must_leave_room_for_one_token() -> None:
    assert len(reader().read(Text("a " * (CONTEXT - 2)))) == CONTEXT - 1
    with pytest.raises(ContextLengthExceeded) as refused:
        reader().read(Text("a " * (CONTEXT - 1)))
    assert refused.value.args == (CONTEXT, CONTEXT, "prompt")


def test_a_huge_text_is_refused_after_a_part_of_it() -> None:
    words = Words()
    with pytest.raises(ContextLengthExceeded):
        reader(words=words).read(chat("a " * 25_000_000))
    assert words.characters < 100 * CONTEXT


def test_a_long_text_of_few_tokens_is_read_whole() -> None:
    assert reader().read(Text("a" * 10_000)) == [1, 7]
