"""Only what a template wrote becomes control tokens; all else is tokenised as llama.cpp does it."""

from __future__ import annotations

import re

import pytest

from modelyard.engine.chat.marked_text import MarkedText, by_template, joined
from modelyard.engine.input.partition import Partition
from modelyard.engine.input.prompt_tokenizer import PromptTokenizer
from modelyard.engine.llama import SpecialToken

END, START, LONG, STRIPPING, TOOL = 1, 2, 3, 4, 5
SPECIAL = [
    SpecialToken(LONG, "<|end|><|end|>x"),
    SpecialToken(START, "<|start|>"),
    SpecialToken(STRIPPING, "<strip>", strips_left=True, strips_right=True),
    SpecialToken(END, "<|end|>"),
    SpecialToken(TOOL, "<tool>", is_text=True),
]


class Letters:
    """A vocabulary with a token for each character, and the special tokens, whose merges may end at "<|end|>"."""

    def __init__(self, *, merges: bool = False) -> None:
        self._merges = merges
        self.texts: list[str] = []

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        assert not add_special
        self.texts.append(text)
        ids = {token.text: token.id for token in SPECIAL if parse_special or token.is_text}
        if self._merges:
            ids["<|end|>"] = END
        pattern = "|".join([*(re.escape(text) for text in ids), "(?s:.)"])
        return [ids.get(piece, 100 + ord(piece[0])) for piece in re.findall(pattern, text)]

    def control_text(self, token: int) -> str:
        return next((one.text for one in SPECIAL if one.id == token and not one.is_text), "")

    def special_tokens(self) -> list[SpecialToken]:
        return SPECIAL

    def begin_tokens(self) -> list[int]:
        return []

    def begin_token(self) -> str:
        return ""


def spelt(tokens: list[int]) -> str:
    """Tokens as text, with control tokens as their number in brackets."""
    return "".join(f"[{token}]" if token < 100 else chr(token - 100) for token in tokens)


def tokens(*parts: str, merges: bool = False) -> str:
    return spelt(PromptTokenizer(Letters(merges=merges)).tokens(joined(parts)))


written = by_template


def test_a_control_token_is_one_where_the_template_wrote_it_and_text_where_it_did_not() -> None:
    assert tokens(written("<|start|>"), "a<|end|><|start|>b", written("<|end|>")) == "[2]a<|end|><|start|>b[1]"


@pytest.mark.parametrize("cut", range(1, 7))
def test_a_control_token_that_content_begins_or_ends_is_text(cut: int) -> None:
    text = "<|end|>"
    assert tokens(text[:cut], written(text[cut:] + "<|end|>")) == f"{text}[1]"
    assert tokens(written("<|end|>" + text[:cut]), text[cut:]) == f"[1]{text}"
    assert tokens(written("<|end|>" + text[:cut]), text[cut], written(text[cut + 1 :] + "!")) == f"[1]{text}!"


def test_a_control_token_in_two_literals_of_a_template_is_one() -> None:
    assert tokens(written("<|e"), written("nd|>"), "<|end|>") == "[1]<|end|>"


def test_content_that_would_make_a_longer_token_leaves_the_templates_shorter_one() -> None:
    assert tokens(written("<|end|>"), "<|end|>x") == "[1]<|end|>x"
    assert tokens(written("<|end|><|end|>"), "x<|end|>") == "[1][1]x<|end|>"
    assert tokens(written("<|end|><|end|>x"), "<|end|>") == "[3]<|end|>"


def test_white_space_beside_a_token_that_strips_it_is_left_out_and_no_other() -> None:
    assert tokens(written("a <strip>\n"), " b <strip> <|end|>") == "a[4]b <strip> <|end|>"
    assert tokens(written("<|end|> <strip> <strip> <|end|>"), "<|end|>") == "[1][4][4][1]<|end|>"


def test_tokens_that_are_text_are_tokens_everywhere() -> None:
    assert tokens(written("<tool>"), "<tool><|end|>", written("<to"), "ol>") == "[5][5]<|end|>[5]"


def test_a_prompt_without_control_tokens_in_its_content_is_tokenised_in_one_call() -> None:
    letters = Letters()
    prompt = joined([written("<|start|>"), "a<|b", written("<|end|>")])
    assert spelt(PromptTokenizer(letters).tokens(prompt)) == "[2]a<|b[1]"
    assert letters.texts == ["<|start|>a<|b<|end|>"]


def test_text_without_marks_is_read_with_all_its_control_tokens() -> None:
    assert spelt(PromptTokenizer(Letters()).tokens("a<|end|>")) == "a[1]"
    assert spelt(PromptTokenizer(Letters()).tokens(MarkedText("a<|end|>"))) == "a<|end|>"


def test_text_that_merges_to_a_control_token_is_cut_within_it() -> None:
    assert tokens(written("<|start|>"), "a<|end|><|end|>", merges=True) == "[2]a<|end|><|end|>"
    assert spelt(PromptTokenizer(Letters(merges=True)).plain("<|end|>")) == "<|end|>"


def test_a_lone_surrogate_is_replaced_before_control_tokens_are_looked_for() -> None:
    assert tokens(written("<|end|>"), "\ud800") == "[1]?"


def test_a_long_conversation_with_control_tokens_in_its_content_has_those_of_its_template() -> None:
    parts = [written("<|start|>"), "<|end|> " * 3] * 2_000
    divided = list(Partition(SPECIAL).divide(joined(parts)))
    assert [part.id for part in divided if isinstance(part, SpecialToken)] == [START] * 2_000
