"""Reasoning is told apart from the answer."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.engine.formats.reasoning import REASONING, ReasoningParser, reasoning_of
from modelyard.protocol.deltas import ContentDelta, Delta, ReasoningDelta, fold

THINK = REASONING["think"]


def deltas_of(pieces: list[str], *, inside: bool = False, also_ends: tuple[str, ...] = ()) -> list[Delta]:
    reader = ReasoningParser(THINK, inside=inside, also_ends=also_ends)
    return [delta for piece in pieces for delta in reader.push(piece)] + reader.finish()


def parted(text: str, *, inside: bool = False, also_ends: tuple[str, ...] = ()) -> tuple[str, str]:
    message = fold(deltas_of([text], inside=inside, also_ends=also_ends))
    return message.reasoning, message.content


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("<think>\na\n\nb\n</think>\n\nc\n", "a\n\nb", "c\n"),
        ("\n<think>a</think>b", "a", "b"),
        ("<think></think>b", "", "b"),
        ("<think>\n\n</think>\n\nb", "", "b"),
        ("<think>a", "a", ""),
        ("<think>a</thi", "a</thi", ""),
        ("<think>a < b</think>c", "a < b", "c"),
        ("<thin", "", "<thin"),
        (" \n b <think>a</think>", "", " \n b <think>a</think>"),
        ("<think>a</think>b <think>c</think>", "a", "b <think>c</think>"),
        ("b</think>c", "", "b</think>c"),
        ("</think>b", "", "b"),
        ("  ", "", "  "),
        ("", "", ""),
    ],
)
def test_reasoning_opens_the_answer(text: str, reasoning: str, content: str) -> None:
    assert parted(text) == (reasoning, content)


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("\na\n</think>\n\nb", "a", "b"),
        ("a", "a", ""),
        ("</think>b", "", "b"),
        ("a <think> b</think>c", "a <think> b", "c"),
    ],
)
def test_reasoning_may_be_opened_by_the_prompt(text: str, reasoning: str, content: str) -> None:
    assert parted(text, inside=True) == (reasoning, content)


def test_another_marker_may_end_it_and_stays() -> None:
    assert parted("a\n<call>b</think>", inside=True, also_ends=("<call>",)) == ("a", "<call>b</think>")


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<", "a", " ", "\n", "<call>"]), max_size=10).map("".join),
    st.lists(st.integers(0, 99), max_size=6),
    st.booleans(),
)
def test_the_split_does_not_matter(text: str, cuts: list[int], inside: bool) -> None:
    at = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    pieces = [text[a:b] for a, b in itertools.pairwise(at)]
    whole = fold(deltas_of([text], inside=inside, also_ends=("<call>",)))
    assert fold(deltas_of(pieces, inside=inside, also_ends=("<call>",))) == whole
    if not inside and "think>" not in text:
        assert whole.content == text


def test_both_pass_as_they_come() -> None:
    reader = ReasoningParser(THINK, inside=False)
    assert reader.push("<think>\n") == []
    assert reader.push("Hm") == [ReasoningDelta("Hm")]
    assert reader.push(". </") == [ReasoningDelta(".")]
    assert reader.push("think>") == []
    assert reader.push("\nSun") == [ContentDelta("Sun")]
    assert reader.push(" ") == [ContentDelta(" ")]
    assert reader.finish() == []


def test_a_prompt_that_opens_reasoning_is_told_from_one_that_closed_it() -> None:
    assert THINK.opened_by("<|im_start|>assistant\n<think>\n")
    assert not THINK.opened_by("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert not THINK.opened_by("<|im_start|>assistant\n")
    assert REASONING["gemma"].opened_by("<|turn>model\n<|channel>thought\n")


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{{ content.split('</think>')[-1] }}", "think"),
        ("{{ '<think>\\n' }}", "think"),
        ("[THINK]{{ thinking }}[/THINK]", "mistral"),
        ("{{ '<|channel>thought\\n<channel|>' }}", "gemma"),
        ("<seed:think>", "seed"),
        ("<|start|>assistant<|channel|>analysis<|message|>", None),
        ("{{ messages }}", None),
    ],
)
def test_reasoning_is_told_from_the_template(template: str, name: str | None) -> None:
    reasoning = reasoning_of(template)
    assert (reasoning.name if reasoning else None) == name
