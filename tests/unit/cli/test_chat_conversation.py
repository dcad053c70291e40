"""A conversation as a value, and as files."""

from __future__ import annotations

import json

import pytest

from modelyard.cli.chat.conversation import Attachment, Conversation, Turn
from modelyard.cli.chat.requests import answer_request, answer_room, may_be_full
from modelyard.cli.chat.transcripts import (
    UnreadableConversation,
    from_saved,
    last_code,
    to_json,
    to_markdown,
    to_saved,
)

IMAGE = Attachment("image", "cat.png", "data:image/png;base64,AAAA")
TALK = Conversation(
    "Be brief.",
    (
        Turn("user", "one"),
        Turn("assistant", "first", "because", model="m"),
        Turn("user", "two", attachments=(IMAGE,)),
        Turn("assistant", "second", model="m", is_partial=True),
    ),
)


def test_reasoning_is_never_sent_back() -> None:
    assert "because" not in json.dumps(TALK.messages())
    assert [message["role"] for message in TALK.messages()] == ["system", "user", "assistant", "user", "assistant"]
    assert TALK.messages()[3]["content"] == [
        {"type": "image_url", "image_url": {"url": IMAGE.url}},
        {"type": "text", "text": "two"},
    ]


def test_the_oldest_exchange_is_left_out_but_never_the_last_message() -> None:
    shorter = TALK.without_oldest()
    assert shorter is not None
    assert [turn.text for turn in shorter.sent] == ["two", "second"]
    assert shorter.messages()[0] == {"role": "system", "content": "Be brief."}
    assert shorter.turns == TALK.turns
    assert shorter.without_oldest() is None
    assert Conversation().without_oldest() is None


def test_the_last_exchange_can_be_taken_back() -> None:
    assert [turn.text for turn in TALK.before_last_question().turns] == ["one", "first"]
    assert TALK.cleared() == Conversation("Be brief.")
    assert Conversation().before_last_question() == Conversation()


def test_what_was_left_out_stays_so_when_a_turn_is_taken_back() -> None:
    shorter = TALK.without_oldest()
    assert shorter is not None
    cut = shorter.before_last_question()
    assert cut.left_out < len(cut.turns)
    assert cut.sent


def test_a_base_model_continues_the_text_of_all_turns() -> None:
    text = Conversation(None, (Turn("user", "Once upon"), Turn("assistant", " a time."), Turn("user", "Then")))
    assert text.document() == "Once upon a time.\nThen"
    path, body = answer_request(text, "m", {"temperature": 0.5, "thinking_budget": 5}, is_chat=False)
    assert path == "/v1/completions"
    assert body == {"model": "m", "prompt": text.document(), "max_tokens": 256, "temperature": 0.5}


def test_settings_and_thinking_are_fields_of_a_chat_completion() -> None:
    path, body = answer_request(TALK, "m", {"seed": 1, "thinking_budget": 5}, is_chat=True, thinks=False, schema="json")
    assert path == "/v1/chat/completions"
    assert {key: body[key] for key in body if key != "messages"} == {
        "model": "m",
        "seed": 1,
        "thinking_budget": 5,
        "enable_thinking": False,
        "response_format": {"type": "json_object"},
    }


def test_a_quarter_of_the_context_is_kept_for_the_answer() -> None:
    assert answer_room(2000, None) == 500
    assert answer_room(2000, 100) == 100
    assert answer_room(2000, -1) == 500
    assert not may_be_full(2000, 100, 1000, "short")
    assert may_be_full(2000, 100, 1899, "short")
    assert may_be_full(2000, None, 0, "long" * 1000)


def test_a_saved_conversation_is_read_back_as_it_was() -> None:
    shorter = TALK.without_oldest()
    assert shorter is not None
    assert from_saved(to_saved(shorter, "org/m")) == (shorter, "org/m")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"modelyard_conversation": 2}',
        b'{"modelyard_conversation": 1, "model": "m", "system": null, "left_out": 0, "turns": [{"role": "system"}]}',
    ],
)
def test_a_file_that_is_no_conversation_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadableConversation, match=r"^it (is|has) "):
        from_saved(data)


def test_an_export_is_for_people_or_for_programs() -> None:
    text = to_markdown(TALK, "m")
    assert "## You\n\none\n\n## m\n\n> because\n\nfirst\n" in text
    assert "*image: cat.png*" in text
    assert "second *(stopped)*" in text
    messages = json.loads(to_json(TALK, "m"))["messages"]
    assert messages[2] == {"role": "assistant", "content": "first", "reasoning_content": "because"}


def test_the_last_block_of_code_can_be_copied() -> None:
    assert last_code("a\n```py\none\n```\n```\ntwo\n```\n") == "two\n"
    assert last_code("no code") is None
