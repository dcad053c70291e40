"""Prompts that cannot fit are refused before an engine is sent them."""

from __future__ import annotations

import pytest

from modelyard.engine.chat.template import MAX_CONVERSATION_LENGTH
from modelyard.errors import ContextLengthExceeded, ConversationTooLong
from modelyard.protocol.prompts import Chat, Prompt, Text, Written
from modelyard.yard.requests.plain_excess import MAX_TOKEN_CHARACTERS, refuse_plain_excess

CONTEXT = 16
LIMIT = CONTEXT * MAX_TOKEN_CHARACTERS


def chat(*contents: str | tuple[str, ...]) -> Chat:
    return Chat(tuple({"role": "user", "content": content} for content in contents))


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        (chat("a" * LIMIT), "messages"),
        (chat("Hello", ("Hello", "a" * LIMIT)), "messages"),
        (Text("a" * LIMIT), "prompt"),
        (Written(("a" * LIMIT,)), "prompt"),
    ],
)
def test_a_text_with_more_characters_than_a_full_context_is_refused(prompt: Prompt, param: str) -> None:
    with pytest.raises(ContextLengthExceeded, match="far too much text") as refused:
        refuse_plain_excess(prompt, CONTEXT)
    assert refused.value.param == param


@pytest.mark.parametrize("prompt", [chat("a" * (LIMIT - 1)), chat(*["a" * (LIMIT // 2)] * 3), Text("a" * (LIMIT - 1))])
def test_a_text_that_an_unknown_vocabulary_might_fit_is_left_to_the_engine(prompt: Prompt) -> None:
    refuse_plain_excess(prompt, CONTEXT)


def test_what_a_template_may_leave_out_does_not_count() -> None:
    refuse_plain_excess(Chat(({"role": "assistant", "content": "4", "reasoning_content": "a" * LIMIT},)), CONTEXT)


def test_a_conversation_that_no_template_may_render_is_refused_before_its_model_is_loaded() -> None:
    half = "a" * (MAX_CONVERSATION_LENGTH // 2)
    refuse_plain_excess(chat(half, half), None)
    with pytest.raises(ConversationTooLong, match="a chat template renders"):
        refuse_plain_excess(chat(half, half, "a"), None)
