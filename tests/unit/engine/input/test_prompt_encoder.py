"""Prompts become tokens, or are refused before they cost anything."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from modelyard.engine.chat.chat_format import ChatFormat
from modelyard.engine.chat.template import ChatTemplate
from modelyard.engine.chat.template_processes import TemplateProcesses
from modelyard.engine.input.prompt_encoder import PromptReader, PromptVocabulary
from modelyard.engine.input.prompt_tokenizer import PromptTokenizer
from modelyard.engine.kv.placeholders import ImageSpan
from modelyard.engine.llama import InfillTokens, SpecialToken
from modelyard.errors import ContextLengthExceeded, InvalidRequest, TakesNoImages, TakesNoSound, UnsupportedOperation
from modelyard.protocol.prompts import (
    Audio,
    Chat,
    Content,
    ControlText,
    Image,
    Infill,
    Media,
    PlainText,
    Text,
    Tokens,
    Written,
)

CONTEXT = 50
TEMPLATES = TemplateProcesses()


class Words:
    """A vocabulary of one token a word, that counts what it is given; token 1, "<s>", begins a text."""

    def __init__(self) -> None:
        self.characters = 0

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        self.characters += len(text)
        assert not add_special
        words = text.replace("<s>", " <s> ").split()
        return [1 if word == "<s>" and parse_special else 7 for word in words]

    def control_text(self, token: int) -> str:
        return "<s>" if token == 1 else ""

    def special_tokens(self) -> list[SpecialToken]:
        return [SpecialToken(1, "<s>")]

    def begin_tokens(self) -> list[int]:
        return [1]

    def begin_token(self) -> str:
        return "<s>"


class Beginless(Words):
    def begin_tokens(self) -> list[int]:
        return []

    def begin_token(self) -> str:
        return ""


def no_token(_text: str) -> int | None:
    return None


class Eyes:
    """Sees or hears three tokens in any image or clip, with one of text on either side."""

    def parts(self, source: Media) -> list[list[int] | ImageSpan]:
        return [[50], ImageSpan(source, 1, 3, 3), [51]]


def reader(
    template: str | None = "{{ messages[0].content }}",
    words: Words | None = None,
    vision: Eyes | None = None,
    longest_token: int | None = None,
) -> PromptReader:
    return PromptReader(
        PromptTokenizer(words or Words()),
        chat_format=None
        if template is None
        else ChatFormat(ChatTemplate(template, bos_token="<s>", eos_token="", processes=TEMPLATES), no_token),
        why_no_chat="no template here",
        vocabulary=PromptVocabulary(100, longest_token=lambda: longest_token),
        context_length=CONTEXT,
        vision=vision,
        name="blind",
    )


def chat(text: str) -> Chat:
    return Chat(({"role": "user", "content": text},))


def test_a_text_that_cannot_fit_is_refused_before_it_is_tokenised() -> None:
    words = Words()
    with pytest.raises(ContextLengthExceeded):
        reader(words=words, longest_token=10).read(Text("x" * 10 * CONTEXT))
    assert words.characters == 0


def test_a_long_text_that_may_fit_is_tokenised() -> None:
    assert reader(longest_token=10).read(Text("x" * (10 * CONTEXT - 1))).tokens
    assert reader(longest_token=None).read(Text("x" * 100 * CONTEXT)).tokens


def test_a_text_begins_with_the_begin_token_once() -> None:
    assert reader().read(Text("a b")).tokens == [1, 7, 7]
    assert reader("{{ bos_token }}{{ messages[0].content }}").read(chat("a b")).tokens == [1, 7, 7]


def test_token_ids_are_taken_as_they_are() -> None:
    assert reader().read(Tokens((3, 99))).tokens == [3, 99]


@pytest.mark.parametrize("token", [-1, 100])
def test_ids_outside_the_vocabulary_are_refused(token: int) -> None:
    with pytest.raises(InvalidRequest, match=f"token {token}, .* ids 0 to 99"):
        reader().read(Tokens((5, token)))


def test_a_chat_needs_a_template_and_a_text_does_not() -> None:
    with pytest.raises(UnsupportedOperation, match="no template here"):
        reader(None).read(chat("a"))
    assert reader(None).read(Text("a")).tokens == [1, 7]


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        reader().read(Tokens(()))


def test_a_prompt_must_leave_room_for_one_token() -> None:
    assert len(reader().read(Text("a " * (CONTEXT - 2))).tokens) == CONTEXT - 1
    with pytest.raises(ContextLengthExceeded) as refused:
        reader().read(Text("a " * (CONTEXT - 1)))
    assert refused.value.args == (CONTEXT, CONTEXT, "prompt")


def test_a_huge_text_is_refused_after_a_part_of_it() -> None:
    words = Words()
    with pytest.raises(ContextLengthExceeded):
        reader(words=words).read(chat("a " * 25_000_000))
    assert words.characters < 100 * CONTEXT


def test_a_long_text_of_few_tokens_is_read_whole() -> None:
    assert reader().read(Text("a" * 10_000)).tokens == [1, 7]


@pytest.mark.parametrize(("text", "expected"), [("<s>a", [1, 7]), (" <s>a", [1, 1, 7]), ("", [1])])
def test_a_text_that_spells_the_begin_token_first_gets_no_second(text: str, expected: list[int]) -> None:
    assert reader().read(Text(text)).tokens == expected


@pytest.mark.parametrize("start", ["{{ bos_token }}", " \n{{ bos_token }}", "<s>", "\n<{{ 's>' }}", "{{ '<' ~ 's>' }}"])
def test_a_template_that_writes_the_begin_token_itself_gets_no_second(start: str) -> None:
    assert reader(start + "{{ messages[0].content }}").read(chat("a")).tokens == [1, 7]


def test_a_message_that_spells_the_begin_token_does_not_begin_the_prompt() -> None:
    assert reader().read(chat("<s> a")).tokens == [1, 7, 7]


def test_a_model_without_a_begin_token_gets_none() -> None:
    texts = reader(words=Beginless())
    assert texts.read(Text("ab")).tokens == [7]
    with pytest.raises(InvalidRequest, match="empty") as refused:
        texts.read(Text(""))
    assert refused.value.param == "prompt"


def test_the_text_around_a_gap_is_text() -> None:
    texts = PromptReader(
        PromptTokenizer(Words()),
        chat_format=None,
        why_no_chat="",
        vocabulary=PromptVocabulary(100, InfillTokens(20, 21, 22)),
        context_length=CONTEXT,
    )
    assert texts.read(Infill("<s> a", "b <s>")).tokens == [1, 20, 7, 7, 21, 7, 7, 22]


def test_a_long_text_is_tokenised_in_parts_that_grow_so_that_all_of_them_cost_little_more_than_the_text() -> None:
    words = Words()
    text = "a" * 1_000_000
    assert reader(words=words).read(Text(text)).tokens == [1, 7]
    assert words.characters < 3 * len(text)


def test_what_is_refused_before_it_is_tokenised_as_a_whole_has_no_length() -> None:
    with pytest.raises(ContextLengthExceeded, match="far too much text") as refused:
        reader().read(chat("a " * 10_000))
    assert refused.value.args == (CONTEXT, None, "messages")


def test_too_many_token_ids_are_refused_with_their_number() -> None:
    assert len(reader().read(Tokens((7,) * (CONTEXT - 1))).tokens) == CONTEXT - 1
    with pytest.raises(ContextLengthExceeded, match=f"{CONTEXT} tokens, but"):
        reader().read(Tokens((7,) * CONTEXT))


def test_what_the_template_refuses_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no system role") as refused:
        reader("{{ raise_exception('no system role') }}").read(chat("a"))
    assert refused.value.param == "messages"


# Images

RED, BLUE = Image(1, 1, b"\xff\0\0", "red"), Image(1, 1, b"\0\0\xff", "blue")
ALL = "{% for m in messages %}{{ m.content }} {% endfor %}answer"


def conversation(*contents: Content) -> Chat:
    return Chat(tuple({"role": "user", "content": content} for content in contents))


def shown(source: Media) -> list[int]:
    return [50, *ImageSpan(source, 1, 3, 3).placeholders, 51]


def test_images_stand_where_they_were_put() -> None:
    read = reader(ALL, vision=Eyes()).read(conversation(("a b ", RED, " c"), "d", (BLUE,)))
    assert read.tokens == [1, 7, 7, *shown(RED), 7, 7, *shown(BLUE), 7]
    assert [picture.source for picture in read.images.values()] == [RED, BLUE]
    assert all(read.tokens[read.tokens.index(first)] == first for first in read.images)


def test_an_image_may_begin_a_prompt_and_stand_twice_in_it() -> None:
    read = reader("{{ messages[0].content }}{{ messages[0].content }}!", vision=Eyes()).read(conversation((RED,)))
    assert read.tokens == [1, *shown(RED), *shown(RED), 7]


def test_a_model_without_a_projector_takes_no_image() -> None:
    with pytest.raises(TakesNoImages, match="The model 'blind' takes no images") as refused:
        reader(ALL).read(conversation((RED,)))
    assert refused.value.param == "red"


def test_text_that_looks_like_an_image_stays_text() -> None:
    hostile = "<image 0000000000000000 0> <__media__> <image>"
    read = reader(ALL, vision=Eyes()).read(conversation((hostile, RED)))
    assert list(read.images.values()) == [ImageSpan(RED, 1, 3, 3)]
    # The begin token, what the words are, the image, and the answer.
    assert len(read.tokens) == 1 + len(hostile.split()) + 5 + 1


def test_an_image_that_the_template_leaves_out_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="leaves this image out") as refused:
        reader("{{ messages | length }}!", vision=Eyes()).read(conversation((RED,), (BLUE,)))
    assert refused.value.param == "red"


def test_a_prompt_must_go_on_behind_an_image() -> None:
    with pytest.raises(InvalidRequest, match="nothing behind the last image"):
        reader("{{ messages[0].content }}", vision=Eyes()).read(conversation(("a", RED)))


def test_images_must_leave_room_for_an_answer() -> None:
    with pytest.raises(ContextLengthExceeded):
        reader(ALL, vision=Eyes()).read(conversation((RED,) * 10))


BEEP = Audio(np.linspace(-1, 1, 1600, dtype=np.float32).tobytes(), 16_000, "beep")


def test_sound_stands_beside_images_where_it_was_put() -> None:
    read = reader(ALL, vision=Eyes()).read(conversation(("a", BEEP, RED, "b")))
    assert read.tokens == [1, 7, *shown(BEEP), *shown(RED), 7, 7]
    assert [picture.source for picture in read.images.values()] == [BEEP, RED]


def test_the_same_samples_at_another_rate_are_another_clip() -> None:
    slower = Audio(BEEP.samples, 8_000)
    assert (slower.duration_s, BEEP.duration_s) == (0.2, 0.1)
    assert len({BEEP.digest, slower.digest, Audio(BEEP.samples, 16_000, "elsewhere").digest}) == 2


def test_a_written_prompt_is_not_given_to_the_template() -> None:
    read = reader(None, vision=Eyes()).read(Written(("<s> a", BEEP, "b c")))
    assert read.tokens == [1, 7, *shown(BEEP), 7, 7]
    with pytest.raises(InvalidRequest, match="nothing behind the last sound"):
        reader(None, vision=Eyes()).read(Written(("a", BEEP)))


def test_what_a_request_brings_to_a_written_prompt_is_text() -> None:
    read = reader(None, vision=Eyes()).read(Written(("<s> a ", PlainText("<s>"), " <s>", BEEP, "b")))
    assert read.tokens == [1, 7, 7, 1, *shown(BEEP), 7]


def test_what_the_server_adds_to_a_message_may_be_a_control_token() -> None:
    read = reader(ALL, vision=Eyes()).read(conversation(("a", ControlText(" <s> "), "<s>", RED), (ControlText("<s>"),)))
    assert read.tokens == [1, 7, 1, 7, *shown(RED), 1, 7]
    assert reader().read(conversation(("a ", ControlText("<s>")))).tokens == [1, 7, 1]


def test_a_model_without_a_projector_takes_no_sound() -> None:
    for prompt in (conversation((BEEP,)), Written(("a", BEEP, "b"))):
        with pytest.raises(TakesNoSound, match="The model 'blind' takes no sound") as refused:
            reader(ALL).read(prompt)
        assert refused.value.param == "beep"


def test_who_takes_no_images_can_be_told_across_processes() -> None:
    error = pickle.loads(pickle.dumps(TakesNoImages("blind", "red")))
    assert (str(error), error.param, error.code) == (str(TakesNoImages("blind", "red")), "red", "unsupported_operation")
