"""Deltas as text and back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelyard.protocol.delta_text import DeltaTextParser, mark_of, marked, marked_call, readable
from modelyard.protocol.deltas import ContentDelta, Message, ReasoningDelta, ToolCall, fold

TEXTS = st.text(alphabet="ab\x10crte<\n", max_size=8)
CALLS = st.builds(ToolCall, TEXTS, TEXTS, TEXTS)


def written(parts: list[tuple[str, str] | ToolCall]) -> str:
    text = ""
    for part in parts:
        if isinstance(part, ToolCall):
            text += marked_call(part)
        else:
            text += mark_of(is_reasoning=part[0] == "reasoning") + marked(part[1])
    return text


@given(
    st.lists(st.tuples(st.sampled_from(["content", "reasoning"]), TEXTS) | CALLS, max_size=6),
    st.lists(st.integers(1, 9), min_size=1, max_size=20),
)
def test_what_is_written_is_read_however_it_is_split(parts: list[tuple[str, str] | ToolCall], sizes: list[int]) -> None:
    text, parser, deltas, at = written(parts), DeltaTextParser(), [], 0
    while at < len(text):
        size = sizes[at % len(sizes)]
        deltas += parser.push(text[at : at + size])
        at += size
    expected = Message(
        "".join(part[1] for part in parts if not isinstance(part, ToolCall) and part[0] == "content"),
        "".join(part[1] for part in parts if not isinstance(part, ToolCall) and part[0] == "reasoning"),
        tuple(part for part in parts if isinstance(part, ToolCall)),
    )
    assert fold([*deltas, *parser.finish()]) == expected


def test_text_without_marks_is_one_delta() -> None:
    assert DeltaTextParser().push("a < b") == [ContentDelta("a < b")]


def test_a_call_is_returned_once_it_is_whole() -> None:
    parser = DeltaTextParser()
    text = marked_call(ToolCall("1", "now", "{}"))
    assert parser.push(text[:-1]) == []
    assert len(parser.push(text[-1])) == 3


def test_a_person_reads_tags_and_json() -> None:
    text = f"{mark_of(is_reasoning=True)}Hm.{mark_of(is_reasoning=False)}Yes.{marked_call(ToolCall('1', 'now', '{}'))}"
    assert readable(text) == "<think>Hm.</think>Yes.\nnow {}\n"
    assert readable("plain") == "plain"
    assert DeltaTextParser().push(mark_of(is_reasoning=True) + "x") == [ReasoningDelta("x")]
